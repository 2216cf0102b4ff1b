"""Documentation of parameters that subclasses share with their base class."""

import re
from inspect import cleandoc
from textwrap import indent

# "name : type" and the indented text below it.
_ENTRY = re.compile(r"^(\w+) : .*\n(?:(?: .*)?\n)*", re.MULTILINE)

_PLACEHOLDER = re.compile(r"^( *)\{(\w+)\}$", re.MULTILINE)


def share_parameter_docs(cls):
    """Replace each line ``{name}`` in the docstring of a class by the entry of a base class.

    Parameters
    ----------
    cls : type
        Class whose bases document a parameter or attribute of each such name; the nearest counts.
    """
    if cls.__doc__ is None:
        return
    entries: dict = {}
    for base in reversed(cls.__mro__[1:]):
        found = _ENTRY.finditer(cleandoc(base.__doc__ or "") + "\n")
        entries |= {entry[1]: entry[0].rstrip() for entry in found}
    cls.__doc__ = _PLACEHOLDER.sub(
        lambda match: indent(entries.get(match[2], match[0]), match[1]), cls.__doc__
    )
