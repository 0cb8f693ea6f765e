"""Prints one table of this project against the same work done by plain commands with the same binaries.

    python -m benchmarks [--runs N] [--only a,b]

Everything lies in a directory of its own below TMPDIR, and is gone in the end.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from benchmarks.here import Here
from benchmarks.notes import notes
from benchmarks.place import BenchmarkError, scratch
from benchmarks.table import Table
from bootstrap.project import HERE, BootstrapError
from tde_replication.errors import UserError
from tde_replication.host_settings import SUPPORTED
from tde_replication.hosts.installation import find_installation

LETTERS = "abcdefghijklmnopq"
CONTAINERS = "ghjmnp"
"""What needs containers and booted machines: those of the tests, and so what only `requirements-dev.txt` has."""


def options(arguments: list[str]) -> tuple[str, int]:
    """Letters of rows, and the number of pairs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="pairs of each measurement (default 5)")
    parser.add_argument("--only", default=",".join(LETTERS), metavar="a,b", help="which rows of the table")
    given = parser.parse_args(arguments)
    wanted = "".join(sorted(set(given.only.replace(",", ""))))
    if not wanted or set(wanted) - set(LETTERS) or given.runs < 1:
        parser.error(f"--only takes letters of {','.join(LETTERS)}, --runs a number from 1 on")
    return wanted, given.runs


def main(arguments: list[str]) -> None:
    wanted, runs = options(arguments)
    signal.signal(signal.SIGTERM, _interrupted)
    installation = find_installation(HERE.root, None, SUPPORTED)
    before = os.getloadavg()[0]
    table = Table(wanted, runs)
    with scratch() as root:
        elsewhere = _elsewhere() if set(wanted) & set(CONTAINERS) else None
        Here(root, installation, table).run()
        if elsewhere:
            elsewhere(root, table)
    print(table)
    print(notes(table, installation, before))


def _elsewhere() -> Callable[[Path, Table], None]:
    try:
        from benchmarks.elsewhere import measure  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise BenchmarkError(f"rows {', '.join(CONTAINERS)} need {missing.name}: `make bench` has it") from None
    return measure


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (BenchmarkError, BootstrapError, UserError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing of it is left")
