"""Check the docstrings of everything public by numpydoc: `python tests/_docstrings.py`."""

import importlib
import inspect
import pkgutil
import sys
from dataclasses import is_dataclass

from numpydoc.validate import validate

import skrobust

# Rules of numpydoc that do not apply to the house style, which is scikit-learn's: summaries start
# on the first line, single results have names, and extended summaries, "See Also" and examples are
# written where they help.
IGNORED = {"GL01", "GL02", "ES01", "SA01", "SA04", "EX01", "RT02"}

# Sections that a method need not repeat where the same method of a base class has them.
INHERITED = {"PR01", "PR02", "RT01", "YD01"}


def public_modules():
    """Return the modules whose `__all__` is public."""
    found = pkgutil.iter_modules(skrobust.__path__, "skrobust.")
    return [importlib.import_module(name) for _, name, _ in found]


def public_names():
    """Return the full names of public objects and of the public methods of classes."""
    names: dict = {}
    for module in [skrobust, *public_modules()]:
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if value in names.values():  # exported twice
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                names[f"{module.__name__}.{name}"] = value
            if inspect.isclass(value):
                members = [m for m in vars(value) if not m.startswith("_")]
                for member in filter(lambda m: callable(getattr(value, m)), members):
                    if not generated(member):
                        names[f"{module.__name__}.{name}.{member}"] = getattr(value, member)
    return names


def generated(member):
    """Return whether scikit-learn writes a method, and its docstring."""
    return member.startswith("set_") and member.endswith("_request")


def ignored(name):
    """Return the rules that do not apply to an object."""
    owner, _, member = name.rpartition(".")
    module, _, cls = owner.rpartition(".")
    if not cls[:1].isupper():
        value = getattr(importlib.import_module(owner), member)
        # The fields of a data class are its attributes, and a constructor may be inherited.
        other_init = inspect.isclass(value) and "__init__" not in vars(value)
        return IGNORED | ({"PR01"} if is_dataclass(value) or other_init else set())
    bases = getattr(importlib.import_module(module), cls).__mro__[1:]
    inherits = any(
        base.__module__.startswith("skrobust") and member in vars(base) for base in bases
    )
    return IGNORED | INHERITED if inherits else IGNORED


def find_errors():
    """Return a line for each violation."""
    lines = []
    for name in public_names():
        for code, message in validate(name)["errors"]:
            if code not in ignored(name):
                lines.append(f"{name}: {code} {message}")
    return lines


if __name__ == "__main__":
    errors = find_errors()
    print("\n".join(errors) or f"{len(public_names())} docstrings follow numpydoc.")
    sys.exit(bool(errors))
