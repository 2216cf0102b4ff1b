"""Check the docstrings of everything public by numpydoc: `python tests/_docstrings.py`."""

import importlib
import inspect
import pkgutil
import sys

import skrobust
from numpydoc.validate import validate

# Rules of numpydoc that do not apply to the house style: summaries start on the first line, and
# extended summaries, "See Also" and examples are written where they help.
IGNORED = {"GL01", "GL02", "ES01", "SA01", "SA04", "EX01"}


def public_modules():
    """Return the modules whose `__all__` is public."""
    found = pkgutil.iter_modules(skrobust.__path__, "skrobust.")
    return [importlib.import_module(name) for _, name, _ in found]


def public_names():
    """Return the full names of public objects and of the public methods of classes."""
    names = {}
    for module in [skrobust, *public_modules()]:
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                names[f"{module.__name__}.{name}"] = value
            if inspect.isclass(value):
                for member in vars(value):
                    if not member.startswith("_") and callable(getattr(value, member)):
                        names[f"{module.__name__}.{name}.{member}"] = getattr(value, member)
    return names


def find_errors():
    """Return a line for each violation."""
    lines = []
    for name in public_names():
        result = validate(name)
        for code, message in result["errors"]:
            if code not in IGNORED:
                lines.append(f"{name}: {code} {message}")
    return lines


if __name__ == "__main__":
    errors = find_errors()
    print("\n".join(errors) or f"{len(public_names())} docstrings follow numpydoc.")
    sys.exit(bool(errors))
