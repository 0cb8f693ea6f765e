"""What could not be asked: noted where a drift check looks for it, and told once above a plan."""

from pathlib import Path

import pytest

from tde_replication import unasked
from tde_replication.errors import AnotherCluster, NoDatabase, NotMadeYet, Unavailable, UserError
from tde_replication.parallel import parallel_map
from tde_replication.unasked import could_not_ask


def test_a_plan_tells_all_of_it_once_by_reason() -> None:
    said: list[str] = []

    def ask(name: str) -> None:
        could_not_ask(f"the keys of {name}", Unavailable("db1 cannot be reached."))

    with unasked.told(said.append):
        parallel_map(ask, ["a", "b", "a"])
        could_not_ask("the port of db2", OSError("no route\nto host"))
    [text] = said
    assert text.splitlines()[1:] == [
        "  db1 cannot be reached. Not checked: the keys of a, the keys of b",
        "  no route to host. Not checked: the port of db2",
    ]


def test_a_machine_that_is_not_made_yet_is_told_once_whatever_is_asked_there() -> None:
    said: list[str] = []
    with unasked.told(said.append):
        for what in ("the keys", "the port"):
            could_not_ask(what, NotMadeYet("db1"))
        could_not_ask("the port", NotMadeYet("db2"))
    [line] = said[0].splitlines()[1:]
    assert line.endswith("before it touches anything. Not checked: all on db1, all on db2")


def test_where_all_was_asked_nothing_is_told() -> None:
    said: list[str] = []
    with unasked.told(said.append):
        pass
    assert said == []


def test_it_is_told_also_where_the_stack_file_is_refused() -> None:
    said: list[str] = []

    def refuse() -> None:
        could_not_ask("the port", Unavailable("gone"))
        raise UserError("a mistake")

    with pytest.raises(UserError, match="a mistake"), unasked.told(said.append):
        refuse()
    assert len(said) == 1


@pytest.mark.parametrize("answer", [AnotherCluster, NoDatabase])
def test_another_cluster_is_an_answer(answer: type[UserError]) -> None:
    said: list[str] = []
    with unasked.told(said.append):
        could_not_ask("role replicator", answer("the server on /d is another cluster"))
    assert said == []


def test_a_file_gets_a_line_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "unasked"
    assert unasked.read(file) == []
    monkeypatch.setenv(unasked.FILE, str(file))
    could_not_ask("Server db1", Unavailable("no server\truns"))
    could_not_ask("Server db2", Unavailable("gone"))
    assert unasked.read(file) == [("Server db1", "no server runs"), ("Server db2", "gone")]
