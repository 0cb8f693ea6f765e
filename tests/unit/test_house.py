"""How the package's modules may depend on one another: see *Layers* in docs/architecture.md."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "components" / "tde_replication"
PACKAGE = "tde_replication"
LONGEST = 300


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


@cache
def imported(path: Path, *, late: bool) -> frozenset[str]:
    """The modules that a file imports, also within functions where `late`; not for type checking alone."""
    return frozenset(_imported(ast.parse(path.read_text()).body, late=late))


def _imported(body: list[ast.stmt], *, late: bool) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in modules() else str(node.module)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif late or not isinstance(node, ast.FunctionDef):
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from _imported(getattr(node, field, []), late=late)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way that ends where it begins; empty: there is none."""
    done: set[str] = set()

    def walk(here: str, way: list[str]) -> list[str]:
        if here in way:
            return [*way[way.index(here) :], here]
        if here in done:
            return []
        found = next((one for there in sorted(graph.get(here, ())) if (one := walk(there, [*way, here]))), [])
        done.add(here)
        return found

    return next((one for start in sorted(graph) if (one := walk(start, []))), [])


def folder(module: str) -> str:
    """The part of the package that a module is in: a folder, or a module at the top."""
    return module.split(".")[1] if "." in module else module


def graph(of: dict[str, Path]) -> dict[str, set[str]]:
    return {name: {one for one in imported(path, late=True) if one in of and one != name} for name, path in of.items()}


def test_no_module_imports_what_imports_it() -> None:
    assert circle(graph(modules())) == []


def test_no_folder_imports_what_imports_it() -> None:
    folders: dict[str, set[str]] = {}
    for name, targets in graph(modules()).items():
        # A package's own __init__ names what it offers.
        if name != PACKAGE:
            folders.setdefault(folder(name), set()).update(
                folder(one) for one in targets if folder(one) != folder(name)
            )
    assert circle(folders) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


PURE = {
    *("plan", "decision", "cluster_plan", "member", "server_parameters", "settings", "stack_file", "reconciler"),
    *(f"vault.{one}" for one in ("address", "caller", "client", "key_age", "names", "secret", "token")),
}
"""What plans a cluster, and what a provider's process runs beside `postgres` and `hosts`."""


def without_pulumi() -> list[str]:
    return [
        name
        for name in modules()
        if name.removeprefix(f"{PACKAGE}.") in PURE
        or (folder(name) in {"hosts", "postgres", "preflight"} and not name.endswith((".resources", ".registration")))
    ]


@pytest.mark.parametrize("module", without_pulumi())
def test_plans_reconcilers_and_machines_load_no_pulumi(module: str) -> None:
    """By whatever way: a plan is made in milliseconds, each reconciler is tested as a plain class, and a provider's process
    starts fast."""
    every, seen, todo = modules(), set[str](), [module]
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        names = imported(every[one], late=False)
        assert not [name for name in names if name.split(".")[0].startswith("pulumi")], f"{module}, by way of {one}"
        todo += [name for name in names if name in every]


@pytest.mark.parametrize("module", modules())
def test_a_long_module_says_why(module: str) -> None:
    text = modules()[module].read_text()
    if len(text.splitlines()) > LONGEST:
        assert f"Over {LONGEST} lines:" in (ast.get_docstring(ast.parse(text)) or "")
