"""What the benchmark's table says of its measurements."""

import psutil

from benchmarks import processes
from benchmarks.table import Row, Table, times


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
