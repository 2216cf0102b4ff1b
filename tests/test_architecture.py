"""The architecture of docs and code: rooms, names, norms, docstrings, generated tables."""

import ast
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest
from _docstrings import find_errors, public_names

import skrobust
from skrobust.threat import NORMS

PACKAGE = Path(skrobust.__file__).parent
DOCS = PACKAGE.parent / "docs"
FILES = sorted(PACKAGE.rglob("*.py"))

# The rooms of the library: each imports only from itself and from rooms before it.
ROOMS = [
    "exceptions",
    "utils",
    "nn",
    "threat",
    "differentiable",
    "adapters",
    "attacks",
    "verification",
    "defenses",
    "metrics",
    "classifiers",
    "smoothing",
    "inspection",
]

in_repository = pytest.mark.skipif(not DOCS.is_dir(), reason="docs are in the repository only")


def room_of(parts):
    """Room of a module or file, or None for the package itself."""
    name = parts[0].removesuffix(".py") if parts else "__init__"
    return None if name == "__init__" else name


def imports_of(path):
    """The parts below the package of every module that a file imports, also inside functions."""
    below = path.relative_to(PACKAGE).parts
    package = below[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "skrobust":
                    yield tuple(alias.name.split(".")[1:])
        elif isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1]
                yield from ((*base, *module, alias.name) for alias in node.names)
            elif module[:1] == ("skrobust",):
                yield from ((*module[1:], alias.name) for alias in node.names)


def test_every_folder_is_a_room():
    found = {room_of(path.relative_to(PACKAGE).parts) for path in FILES} - {None}
    assert found == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_from_a_later_room(path):
    own = room_of(path.relative_to(PACKAGE).parts)
    if own is None:  # the package itself exports from all rooms
        return
    for parts in imports_of(path):
        room = room_of(parts)
        assert room in ROOMS, f"{path.name} imports the package itself: {parts}"
        assert ROOMS.index(room) <= ROOMS.index(own), f"{path.name} imports {'.'.join(parts)}"


def test_private_modules_of_other_rooms_are_parts_of_their_core():
    """Rooms use each other through `__init__`, or through what is written for other rooms."""
    shared = {("attacks", "core"), ("differentiable", "_modules"), ("differentiable", "_nets")}
    shared |= {("differentiable", "_registry"), ("threat", "_parameters")}
    for path in FILES:
        own = room_of(path.relative_to(PACKAGE).parts)
        for parts in imports_of(path):
            room = room_of(parts)
            private = len(parts) > 1 and parts[1].startswith("_") and room not in (own, "utils")
            if own is not None and private:
                private_metrics = own == "inspection" and room == "metrics"
                assert parts[:2] in shared or private_metrics, f"{path}: {parts}"


def names_a_norm(node):
    """Whether an expression is a norm's name, or a collection of such names."""
    if isinstance(node, ast.Constant):
        return node.value in NORMS
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(names_a_norm(element) for element in node.elts)
    return isinstance(node, ast.Name) and node.id in ("NORMS", "LP_NORMS")


def dispatches(tree):
    """Comparisons and matches with the name of a norm."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if any(names_a_norm(part) for part in (node.left, *node.comparators)):
                yield node.lineno
        elif isinstance(node, ast.MatchValue) and names_a_norm(node.value):
            yield node.lineno


def test_dispatches_are_seen():
    source = 'a.norm == "l2"\n"l0" in (b, c)\nn in ("linf", "l1")\nn not in LP_NORMS\nx == "l3"\n'
    source += 'match n:\n    case "l1":\n        pass\n'
    assert sorted(dispatches(ast.parse(source))) == [1, 2, 3, 4, 7]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_dispatch_on_a_norm_outside_of_threat(path):
    if path.relative_to(PACKAGE).parts[0] != "threat":
        assert list(dispatches(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_no_file_is_long():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: n for path, n in lengths.items() if n > 450} == {}


def test_no_two_classes_have_the_same_name():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, n in names.items() if n > 1] == []


def test_docstrings_follow_numpydoc():
    assert len(public_names()) > 150
    assert find_errors() == []


def test_docstrings_open_with_a_verb_or_a_noun():
    """Docstrings of everything, also private, do not open with a question."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                opening = (ast.get_docstring(node) or "").split(" ")[0]
                assert opening not in ("What", "How", "Who", "Why"), f"{path}: {node}"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@in_repository
def test_tables_of_the_docs_follow_from_the_code(tables):
    for path, text in tables.pages().items():
        written = (DOCS.parent / path).read_text(encoding="utf-8")
        assert written == text, f"{path} is out of date: run `make tables`."


@in_repository
def test_every_public_name_is_documented(tables):
    pages = tables.api_page()
    listed = set()
    for part in pages.split(".. module:: ")[1:]:
        module, _, rest = part.partition("\n")
        listed |= {f"{module}.{name}" for name in re.findall(r"^   (\w+)$", rest, re.MULTILINE)}
    public = {name for name in public_names() if not name.split(".")[-2][:1].isupper()}
    assert public <= listed
