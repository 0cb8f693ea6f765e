"""Text of a machine that was taken over, on its way to a person: shown, never obeyed by a terminal or a CI system."""

import re

import pytest
from hypothesis import given, strategies as st

from tde_replication import console
from tde_replication.errors import CommandFailed, UserError, escaped
from tde_replication.stack_file import StackFileError
from tests.unit.test_console import Engine

HOSTILE = st.text(st.sampled_from("#:[]vso \x1b\x07\x9b\u202e\r\n\tab") | st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb", r"a\x0db"),
        ("abc\u202edef", r"abc\u202edef"),
        ("\U000e0001", r"\U000e0001"),
        ("x ##vso[task.setvariable variable=y]z", r"x \x23#vso[task.setvariable variable=y]z"),
        ("##[error]", r"\x23#[error]"),
        ("  ::set-env name=x::y", r"  \x3a:set-env name=x::y"),
        ("a\n::add-path::/x", "a\n\\x3a:add-path::/x"),
        ("::1 and a::b, Größe 日本 #1 [x]\tdone\n", "\\x3a:1 and a::b, Größe 日本 #1 [x]\tdone\n"),
    ],
)
def test_what_would_be_obeyed_is_shown(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(HOSTILE)
def test_nothing_is_left_to_obey_and_twice_is_once(text: str) -> None:
    shown = escaped(text)
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert not re.search(r"##\w*\[", shown)
    assert not any(line.lstrip().startswith("::") for line in shown.split("\n"))
    assert escaped(shown) == shown


@pytest.mark.parametrize(
    "kind", [UserError, lambda text: CommandFailed("ls", 1, text), lambda text: StackFileError("f", [text])]
)
def test_every_sentence_is_escaped(kind: type[UserError]) -> None:
    assert r"\x1b[31m \x23#vso[x]" in str(kind("\x1b[31m ##vso[x]"))


def test_so_is_what_is_told_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    monkeypatch.setattr(console, "_engine", lambda: Said(engine))
    console.say("base backup of \x1b]0;x\x07")
    assert engine.told[0].message == r"base backup of \x1b]0;x\x07"


class Said:
    """Stands for the engine's stub."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def Log(self, request: object) -> None:  # noqa: N802 - gRPC's name
        self._engine.told.append(request)  # type: ignore[arg-type]
