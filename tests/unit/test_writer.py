"""What judges a switchover: whether two servers took writes at once, and whether a commit was lost."""

from typing import Any

import pytest

from tests.engine.writer import Commit, Writer


def commits(*answers: tuple[str, float, float]) -> list[Commit]:
    return [Commit(number, *answer) for number, answer in enumerate(answers, 1)]


@pytest.mark.parametrize(
    ("answers", "torn"),
    [
        ([("db1", 0, 1), ("db1", 1, 2), ("db2", 3, 4)], []),
        ([("db1", 0, 1), ("db2", 3, 4), ("db1", 4.5, 5)], [3]),
        ([("db1", 0, 1), ("db2", 3, 4), ("db1", 2, 5)], []),
    ],
    ids=["one after the other", "the former primary goes on", "answered late, and begun before"],
)
def test_two_that_take_writes_at_once(answers: list[tuple[str, float, float]], torn: list[int]) -> None:
    nobody: Any = None
    writer = Writer(nobody, commits(*answers))
    assert [commit.number for commit in writer.torn()] == torn


def test_a_commit_that_was_answered_and_is_not_there() -> None:
    class Holds:
        def sql(self, name: str, query: str) -> list[tuple[int]]:
            assert name == "db2"
            assert "written" in query
            return [(1,), (3,)]

    cluster: Any = Holds()
    writer = Writer(cluster, commits(("db1", 0, 1), ("db1", 1, 2)))
    assert writer.lost("db2") == {2}
