"""Write the tables of README, guide and API page that follow from the code: `make tables`.

Generated parts of a page are between two comments, `<name>: begin` and `<name>: end`. The API page
is generated as a whole.
"""

import re
import sys
from importlib import import_module
from pathlib import Path

from skrobust import attacks, defenses
from skrobust.attacks import AutoAttack, BaseAttack, MinimumNormAttack
from skrobust.defenses import BaseDefense
from skrobust.differentiable._registry import registered_classes
from skrobust.threat import NORMS

ROOT = Path(__file__).resolve().parent.parent

# Libraries whose classes have views.
LIBRARIES = {"sklearn", "skorch", "torch"}

# Title of each module on the API page.
MODULES = {
    "skrobust": "Estimators",
    "skrobust.threat": "Threat model",
    "skrobust.attacks": "Attacks",
    "skrobust.defenses": "Defenses",
    "skrobust.verification": "Verification",
    "skrobust.smoothing": "Randomised smoothing",
    "skrobust.metrics": "Metrics",
    "skrobust.inspection": "Inspection",
    "skrobust.differentiable": "Differentiable views",
    "skrobust.differentiable.runtime": "Evaluation of views",
    "skrobust.adapters": "Fitted classifiers",
    "skrobust.nn": "Modules",
    "skrobust.exceptions": "Exceptions and warnings",
}

NEEDS = {
    "any": "what the classifier offers",
    "gradients": "gradients",
    "scores": "`predict_proba` or `decision_function`",
    "decisions": "`predict`",
}


def subclasses(module, base):
    """Return the public classes of a module below a base class, by name."""
    classes = [getattr(module, name) for name in module.__all__]
    classes = [c for c in classes if isinstance(c, type) and issubclass(c, base)]
    return [c for c in classes if c not in (BaseAttack, MinimumNormAttack, BaseDefense)]


def summary(cls):
    """Return the first line of a docstring, without its full stop."""
    return cls.__doc__.split("\n")[0].removesuffix(".")


def attack_rows():
    """Return name, summary, aim, norms and needs of each attack, those to start with first."""

    def order(attack):
        access = list(NEEDS).index(attack._access)
        return (attack is not AutoAttack, access, issubclass(attack, MinimumNormAttack))

    rows = []
    for attack in sorted(subclasses(attacks, BaseAttack), key=order):
        aim = "closest point" if issubclass(attack, MinimumNormAttack) else "one `eps`"
        allowed = attack._parameter_constraints["norm"][0].options
        norms = ", ".join(norm for norm in NORMS if norm in allowed)
        rows.append([f"`{attack.__name__}`", summary(attack), aim, norms, NEEDS[attack._access]])
    return rows


def defense_rows():
    """Return name and summary of each defense."""
    return [[f"`{d.__name__}`", summary(d)] for d in subclasses(defenses, BaseDefense)]


def markdown(header, rows):
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rst(header, rows):
    """Return a table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [header, *rows]:
        for i, cell in enumerate(row):
            lines.append(f"   {'* -' if i == 0 else '  -'} {cell.replace('`', '``')}")
    return "\n".join(lines)


def api_page():
    """Return the API page: every public name of every module."""
    parts = ["API reference\n============="]
    for name, title in MODULES.items():
        names = "\n".join(f"   {public}" for public in import_module(name).__all__)
        summary_of_module = import_module(name).__doc__.split("\n")[0]
        parts.append(
            f"{title}\n{'-' * len(title)}\n\n.. module:: {name}\n\n{summary_of_module}\n\n"
            f".. autosummary::\n   :toctree: generated\n\n{names}"
        )
    return "\n\n".join(parts) + "\n"


def view_rows():
    """Return the classes that have a view, by the module that defines them."""
    by_module: dict = {}
    for cls in registered_classes():
        if cls.__module__.split(".")[0] not in LIBRARIES:  # registered by a user, or by a test
            continue
        package = ".".join(part for part in cls.__module__.split(".") if part[0] != "_")
        by_module.setdefault(package, set()).add(cls.__name__)
    return [
        [module, ", ".join(f"`{name}`" for name in sorted(names))]
        for module, names in sorted(by_module.items())
    ]


def pages():
    """Return the generated text of each page, by its path."""
    attack_header = ["attack", "method", "looks for", "norms", "needs"]
    tables = {
        "README.md": {
            "attacks": markdown(attack_header, attack_rows()),
            "defenses": markdown(["defense", "objective"], defense_rows()),
        },
        "docs/user_guide.rst": {
            "attacks": rst(attack_header, attack_rows()),
            "defenses": rst(["defense", "objective"], defense_rows()),
            "views": rst(["module", "classes with a view"], view_rows()),
        },
    }
    texts = {"docs/api.rst": api_page()}
    for path, parts in tables.items():
        texts[path] = (ROOT / path).read_text(encoding="utf-8")
        for name, table in parts.items():
            texts[path] = replace_part(texts[path], name, table, markdown=path.endswith(".md"))
    return texts


def replace_part(text, name, table, markdown):
    """Return a page with another table between the two comments of that name."""
    begin, end = (
        f"<!-- {name}: {word} -->" if markdown else f".. {name}: {word}"
        for word in ("begin", "end")
    )
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"There must be one part from {begin!r} to {end!r}.")
    return pattern.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", text)


def main():
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
