"""What the benchmark's table says of its measurements."""

import re

import psutil

from benchmarks import processes
from benchmarks.__main__ import LETTERS
from benchmarks.notes import INCLUDED
from benchmarks.table import Row, Table, times
from bootstrap.project import HERE


def row(*, plain: list[float], against: str = "floor", limit: float = 1.4) -> Row:
    return Row("b", "up", "s", times(limit), against, ours=[2.0, 3.0, 1.0], plain=plain)


def test_a_target_is_for_the_median_of_the_pairs_ratios() -> None:
    assert str(row(plain=[2.0, 1.0, 1.0])).endswith("1.4 x: met")
    assert str(row(plain=[1.0, 1.0, 1.0])).endswith("1.4 x: MISSED")
    assert "floor" in str(row(plain=[1.0, 1.0, 1.0]))


def test_what_was_not_compared_is_not_printed() -> None:
    table = Table("b", 3)
    table.row(row(plain=[]))
    table.row(Row("b", "alone", "s", ours=[1.0]))
    lines = str(table).splitlines()
    assert [line.split(",")[0] for line in lines[2:]] == ["(b) alone"]


def test_memory_can_leave_out_what_was_there_before() -> None:
    sleeper = psutil.Popen(["sleep", "60"])
    try:
        with processes.watched(only_new=True) as peak:
            psutil.Popen(["sleep", "0.2"]).wait()
        with processes.watched() as all_of_it:
            psutil.Popen(["sleep", "0.2"]).wait()
    finally:
        sleeper.kill()
        sleeper.wait()
    assert 0 < peak.total < all_of_it.total


def test_each_row_is_explained_below_the_table_and_in_the_docs() -> None:
    assert set(LETTERS) == set(INCLUDED)
    rows = re.findall(r"^\| (\([a-z]\)[^|]*)\|", (HERE.root / "docs/performance.md").read_text(), re.MULTILINE)
    named = {letter for row in rows for letter in re.findall(r"\(([a-z])\)", row)}
    assert named | {"b", "c"} >= set(LETTERS)
