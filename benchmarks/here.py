"""(a) to (f) and (i): servers that are processes of this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import clone, processes
from benchmarks.by_hand import ByHand
from benchmarks.ours import Ours
from benchmarks.place import cost
from benchmarks.table import Row, Table, at_most
from tde_replication.hosts.installation import Installation

TOGETHER = 4
"""Standbys at once: as many as there are threads for all dynamic resources."""


class Here:
    def __init__(self, root: Path, installation: Installation, table: Table) -> None:
        self._root = root
        self._installation = installation
        self._table = table

    def run(self) -> None:
        wanted = set(self._table.wanted)
        if wanted & set("abcd"):
            self._times()
        if "e" in wanted:
            self._memory()
        if "f" in wanted:
            self._clone()
        if "i" in wanted:
            self._clones_at_once()

    def _times(self) -> None:
        row = self._table.row
        start = row(Row("a", "nothing to streaming", "s", at_most(2.0, lambda row: row.differences, "script + 2 s")))
        start_cpu = row(Row("a", "the same, of all processes", "CPU s"))
        again = row(Row("b", "up with nothing to do", "s", at_most(2.5, lambda row: row.ours, "2.5 s")))
        again_cpu = row(Row("b", "the same, of all processes", "CPU s"))
        drift = row(Row("c", "drift check", "s", at_most(2.5, lambda row: row.ours, "2.5 s")))
        drift_cpu = row(Row("c", "the same, of all processes", "CPU s"))
        end = row(Row("d", "destroy", "s"))
        resources = 0
        for n in self._table.pairs("a to d"):
            with self._ours(n) as ours:
                made = cost(ours.from_nothing)
                start.ours.append(made.seconds)
                start_cpu.ours.append(made.cpu)
                for one, cpu, step in ((again, again_cpu, ours.up), (drift, drift_cpu, ours.drift)):
                    if one.letter in self._table.wanted:
                        took = cost(step)
                        one.ours.append(took.seconds)
                        cpu.ours.append(took.cpu)
                resources = ours.resources()
                end.ours.append(cost(ours.destroy).seconds)
            with self._by_hand(n) as script:
                made = cost(script.up)
                start.plain.append(made.seconds)
                start_cpu.plain.append(made.cpu)
                end.plain.append(cost(script.down).seconds)
        self._table.remark(f"(a) to (d): {resources} resources, providers and the stack itself among them.")

    def _memory(self) -> None:
        """Apart from the times: looking every 20 ms costs time."""
        row = self._table.row(Row("e", "peak memory while that is made", "MiB"))
        peaks = []
        for n in self._table.pairs("e"):
            with self._ours(n) as ours:
                with processes.watched() as peak:
                    ours.from_nothing()
                row.ours.append(peak.total)
                peaks.append(peak)
            with self._by_hand(n) as script:
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
            row = self._table.row(
                Row("f", "clone of a 1 GiB database", "s", at_most(1.05, lambda row: row.ratios, "1.05 x"))
            )
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
        with self._ours(0) as ours:
            ours.declare()
            ours.from_nothing()
            yield clone.Database(ours, self._installation, size)

    @contextmanager
    def _ours(self, n: int) -> Iterator[Ours]:
        with self._directory(f"ours-{n}") as directory:
            ours = Ours(directory, self._installation)
            ours.init()
            yield ours

    @contextmanager
    def _by_hand(self, n: int) -> Iterator[ByHand]:
        with self._directory(f"script-{n}") as directory:
            yield ByHand(directory, self._installation)

    @contextmanager
    def _directory(self, name: str) -> Iterator[Path]:
        """A side's own; when it goes, no process of that side is left to slow down the other."""
        directory = self._root / name
        directory.mkdir()
        directory.chmod(0o755)
        os.sync()
        yield directory
        processes.end_all()
        shutil.rmtree(directory)
