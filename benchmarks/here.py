"""(a) to (f), (i), (k) to (o) and (q): servers that are processes of this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import asking, clone, fixture, many, processes, reviewing, switchover
from benchmarks.sides import Sides
from benchmarks.table import Row, Table, times
from benchmarks.times import Times
from tde_replication.hosts.installation import Installation

TOGETHER = 4
"""Standbys at once: as many as there are threads for all dynamic resources."""


MEASURES: dict[str, Callable[[Sides, Table], None]] = {
    "k": many.servers,
    "l": many.stacks,
    "m": switchover.measure,
    "n": fixture.measure,
    "o": reviewing.measure,
    "q": asking.measure,
}


class Here:
    def __init__(self, root: Path, installation: Installation, table: Table) -> None:
        self._root = root
        self._table = table
        self._sides = Sides(root, installation, table.remark)

    def run(self) -> None:
        own = {
            "abcd": Times(self._sides, self._table).run,
            "e": self._memory,
            "f": self._clone,
            "i": self._clones_at_once,
        }
        rest = {letters: partial(measure, self._sides, self._table) for letters, measure in MEASURES.items()}
        for letters, measure in (own | rest).items():
            if set(letters) & set(self._table.wanted):
                measure()

    def _memory(self) -> None:
        """Apart from the times: looking every 20 ms costs time."""
        row = self._table.row(Row("e", "peak memory while that is made", "MiB"))
        peaks = []
        for _ in self._table.pairs("e"):
            with self._sides.ours("standby1") as ours:
                with processes.watched() as peak:
                    ours.from_nothing()
                row.ours.append(peak.total)
                peaks.append(peak)
            with self._sides.script() as script:
                with processes.watched() as peak:
                    script.up()
                row.plain.append(peak.total)
        middle = median(row.ours)
        typical = min(peaks, key=lambda peak: abs(peak.total - middle))
        parts = sorted(typical.parts.items(), key=lambda part: -part[1])
        self._table.remark(
            "(e) ours at its peak, MiB: " + ", ".join(f"{name} {size:.0f}" for name, size in parts if size >= 1)
        )

    def _clone(self) -> None:
        with self._filled(1024, 1) as database:
            row = self._table.row(Row("f", "clone of a 1 GiB database", "s", times(1.05)))
            for n in self._table.pairs("f"):
                row.ours.append(database.through_stack(f"clone{n}"))
                row.plain.append(database.raw(1))

    def _clones_at_once(self) -> None:
        size = 512
        with self._filled(size, TOGETHER) as database:
            row = self._table.row
            one = row(Row("i", f"clone of {size} MiB", "s"))
            four = row(Row("i", f"{TOGETHER} of them at once", "s"))
            total = row(Row("i", "the same, all together", "MiB/s"))
            ratio = row(Row("i", f"{TOGETHER} at once / one", "x"))
            for n in self._table.pairs("i"):
                names = [f"clone{n}-{each}" for each in range(TOGETHER)]
                one.ours.append(database.through_stack(names[0]))
                one.plain.append(database.raw(1))
                four.ours.append(database.through_stack(*names))
                four.plain.append(database.raw(TOGETHER))
            for ones, fours, rates, ratios in (
                (one.ours, four.ours, total.ours, ratio.ours),
                (one.plain, four.plain, total.plain, ratio.plain),
            ):
                rates.extend(TOGETHER * size / seconds for seconds in fours)
                ratios.extend(seconds / single for seconds, single in zip(fours, ones, strict=True))

    @contextmanager
    def _filled(self, size: int, clones: int) -> Iterator[clone.Database]:
        clone.refuse_full_disk(self._root, size, clones)
        with self._sides.ours() as ours:
            ours.from_nothing()
            yield clone.Database(ours, self._sides.installation, size)
