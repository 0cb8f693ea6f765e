"""Prints one table of this project against a plain shell script that does the same steps with the same binaries.

    python -m benchmarks [--runs N] [--only a,b]

Everything lies in a directory of its own below TMPDIR, and is gone in the end.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks import clone, processes
from benchmarks.by_hand import ByHand
from benchmarks.notes import notes
from benchmarks.ours import Ours
from benchmarks.place import BenchmarkError, cost, scratch
from benchmarks.table import Row, at_most, heading
from bootstrap.project import HERE, BootstrapError, say
from components.errors import Problem
from components.hosts.installation import Installation, find_installation
from components.settings import SUPPORTED

LETTERS = "abcdef"


class Bench:
    def __init__(self, root: Path, installation: Installation, runs: int, wanted: str) -> None:
        self._root = root
        self._installation = installation
        self._runs = runs
        self._wanted = wanted
        self.rows: list[Row] = []
        self.resources = 0
        self.peaks: list[processes.Peak] = []

    def run(self) -> None:
        if set(self._wanted) & set("abcd"):
            self._times()
        if "e" in self._wanted:
            self._memory()
        if "f" in self._wanted:
            self._clone()

    def _row(self, row: Row) -> Row:
        if row.letter in self._wanted:
            self.rows.append(row)
        return row

    def _times(self) -> None:
        start = self._row(
            Row("a", "nothing to streaming", "s", at_most(2.0, lambda row: row.differences, "script + 2 s"))
        )
        start_cpu = self._row(Row("a", "the same, of all processes", "CPU s"))
        again = self._row(Row("b", "up with nothing to do", "s", at_most(2.5, lambda row: row.ours, "2.5 s")))
        again_cpu = self._row(Row("b", "the same, of all processes", "CPU s"))
        drift = self._row(Row("c", "drift check", "s", at_most(2.5, lambda row: row.ours, "2.5 s")))
        drift_cpu = self._row(Row("c", "the same, of all processes", "CPU s"))
        end = self._row(Row("d", "destroy", "s"))
        for n in self._numbered("a to d"):
            with self._ours(n) as ours:
                made = cost(ours.from_nothing)
                start.ours.append(made.seconds)
                start_cpu.ours.append(made.cpu)
                for row, cpu, step in ((again, again_cpu, ours.up), (drift, drift_cpu, ours.drift)):
                    if row.letter in self._wanted:
                        took = cost(step)
                        row.ours.append(took.seconds)
                        cpu.ours.append(took.cpu)
                self.resources = ours.resources()
                end.ours.append(cost(ours.destroy).seconds)
            with self._by_hand(n) as script:
                made = cost(script.up)
                start.script.append(made.seconds)
                start_cpu.script.append(made.cpu)
                end.script.append(cost(script.down).seconds)

    def _memory(self) -> None:
        """Apart from the times: looking every 20 ms costs time."""
        row = self._row(Row("e", "peak memory while that is made", "MiB"))
        for n in self._numbered("e"):
            with self._ours(n) as ours:
                with processes.watched() as peak:
                    ours.from_nothing()
                row.ours.append(peak.total)
                self.peaks.append(peak)
            with self._by_hand(n) as script:
                with processes.watched() as peak:
                    script.up()
                row.script.append(peak.total)

    def _clone(self) -> None:
        clone.refuse_full_disk(self._root)
        row = self._row(Row("f", "clone of a 1 GiB database", "s", at_most(1.05, lambda row: row.ratios, "1.05 x")))
        with self._ours(0) as ours:
            ours.from_nothing()
            clone.fill(ours)
            for n in self._numbered("f"):
                row.ours.append(clone.through_stack(ours, f"clone{n}"))
                row.script.append(clone.raw(ours, self._installation))

    def _numbered(self, what: str) -> Iterator[int]:
        for n in range(1, self._runs + 1):
            say(f"{what}: pair {n} of {self._runs}")
            yield n

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


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="pairs of each measurement (default 5)")
    parser.add_argument("--only", default=",".join(LETTERS), metavar="a,b", help="which rows of the table")
    options = parser.parse_args(arguments)
    wanted = "".join(sorted(set(options.only.replace(",", ""))))
    if not wanted or set(wanted) - set(LETTERS) or options.runs < 1:
        parser.error(f"--only takes letters of {','.join(LETTERS)}, --runs a number from 1 on")
    signal.signal(signal.SIGTERM, _interrupted)
    installation = find_installation(HERE.root, None, SUPPORTED)
    before = os.getloadavg()[0]
    with scratch() as root:
        bench = Bench(root, installation, options.runs, wanted)
        bench.run()
    print(heading())
    print("\n".join(map(str, bench.rows)))
    print(notes(bench.rows, installation, bench.resources, bench.peaks, before))


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BenchmarkError, BootstrapError, Problem) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing of it is left")
