"""docs/architecture.md names the modules that there are: all at the top of the package, those that load Pulumi, those that keep
something."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.unit.pages import PACKAGE, ROOT, is_path, place, quoted

PAGE = (ROOT / "docs" / "architecture.md").read_text()
LOCKS = {"Lock", "RLock", "Semaphore", "BoundedSemaphore"}
FILES = {file.name for folder in (PACKAGE, ROOT / "policies") for file in folder.rglob("*.py")}
KEEPERS = LOCKS | {"ContextVar", "defaultdict", "dict", "list", "set", "deque", "Facts", "Workers"}
"""Calls that make what a module keeps."""


def part(beginning: str) -> str:
    """The section of the page, or the paragraph, that begins so."""
    return re.split(r"\n#+ |\n\n(?![|])", PAGE[PAGE.index(beginning) :], maxsplit=1)[0]


def modules(text: str) -> set[str]:
    return {one for one in quoted(text) if one.endswith(".py")}


def sources() -> dict[str, ast.Module]:
    return {str(file.relative_to(PACKAGE)): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}


def called(node: ast.expr) -> str:
    """The last name of what is called, of a decorator or an expression."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def kept(module: ast.Module) -> Iterator[str]:
    """What a module keeps in itself: collections that grow, locks, caches, attributes of its classes that are set anew."""
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            value = node.value
            grows = isinstance(value, ast.Dict | ast.List) and not (
                value.keys if isinstance(value, ast.Dict) else value.elts
            )
            if grows or (isinstance(value, ast.Call) and called(value) in KEEPERS):
                yield ast.unparse(node)
        if isinstance(node, ast.FunctionDef) and {"cache", "lru_cache"} & set(map(called, node.decorator_list)):
            yield node.name
    classes = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    for assignment in ast.walk(module):
        targets = assignment.targets if isinstance(assignment, ast.Assign) else []
        flat = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
        yield from (
            ast.unparse(one)
            for one in flat
            if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id in classes
            if not one.attr.startswith("__")
        )


def loads_pulumi(module: ast.Module) -> bool:
    """Where it is imported, or in a function; a name for the type checker alone loads nothing."""
    checked = {
        one
        for node in ast.walk(module)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for one in ast.walk(node)
    }
    return any(
        name.split(".")[0] == "pulumi"
        for node in ast.walk(module)
        if node not in checked
        for name in (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    )


def test_every_module_at_the_top_is_named() -> None:
    assert {file.name for file in PACKAGE.glob("*.py")} - {"__init__.py"} - modules(PAGE) == set()


def test_who_loads_pulumi_is_named_and_nobody_else() -> None:
    found = {name for name, module in sources().items() if loads_pulumi(module)}
    assert modules(part("Imports go one way")) - {"tests/unit/test_house.py"} == found


def test_each_module_that_keeps_something_is_named_and_no_other() -> None:
    found = {name for name, module in sources().items() if list(kept(module))}
    assert modules(part("What a process keeps")) - {"tests/unit/test_architecture.py"} == found


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("known = {}", 1),
        ("known: dict[str, int] = {}", 1),
        ("lock = threading.Lock()", 1),
        ("@cache\ndef asked(): ...", 1),
        ("class Told:\n    ever = False\n\ndef tell():\n    was, Told.ever = Told.ever, True", 1),
        ("TABLE = {1: 2}\nNAMES = ['a']", 0),
        ("def work():\n    known = {}", 0),
    ],
)
def test_what_counts_as_kept(text: str, count: int) -> None:
    assert len(list(kept(ast.parse(text)))) == count


@pytest.mark.parametrize("path", sorted({one for one in quoted(PAGE) if is_path(one)}))
def test_every_path_is_there(path: str) -> None:
    """A bare name is of the folder that its row or sentence names first."""
    assert place(path) or ("/" not in path and path in FILES), path
