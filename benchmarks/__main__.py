"""Prints one table of this project against the same work done by plain commands with the same binaries.

    python -m benchmarks [--runs N] [--only a,b]

Everything lies in a directory of its own below TMPDIR, and is gone in the end.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from benchmarks import far, steps, throughput
from benchmarks.here import Here
from benchmarks.machines import Machines
from benchmarks.notes import notes
from benchmarks.place import BenchmarkError, scratch
from benchmarks.table import Table
from bootstrap.project import HERE, BootstrapError
from tde_replication.errors import UserError
from tde_replication.host_settings import SUPPORTED
from tde_replication.hosts.installation import find_installation
from tests.docker.lab import CannotRunError

LETTERS = "abcdefghij"


def elsewhere(root: Path, table: Table) -> None:
    """(g), (h) and (j): what needs containers, where they can run."""
    measures = {
        "g": throughput.elsewhere,
        "h": steps.from_nothing,
        "j": far.preview,
    }
    with Machines() as machines:
        for letter, measure in measures.items():
            if letter in table.wanted:
                directory = root / letter
                directory.mkdir(mode=0o755)
                try:
                    measure(directory, machines, table)
                except CannotRunError as reason:
                    table.remark(f"({letter}) DID NOT RUN in containers and by ssh: {reason}")


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
    table = Table(wanted, options.runs)
    with scratch() as root:
        Here(root, installation, table).run()
        if "g" in wanted:
            throughput.here(table)
        elsewhere(root, table)
    print(table)
    print(notes(table, installation, before))


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BenchmarkError, BootstrapError, UserError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing of it is left")
