"""python -m tde_replication.restore_drill: can the last backup be restored, and read?

It restores the newest backup and all archived WAL on one of the stack's servers (a standby, where one has room), beside its data
directory, starts that without a network, reads every table, and removes it, however it ends. The result is noted on that server,
where `status` and `report` find it. Exit status: 0, all of it could be read; 1, it could not; 3, nothing could be tried.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tde_replication.errors import UserError, escaped
from tde_replication.progress import reported_to
from tde_replication.restore_drill.drill import drill
from tde_replication.status.backups import Drill
from tde_replication.status.declared import declared
from tde_replication.status.words import duration, size

FAILED, NOT_TRIED = 1, 3


def text(stack: str, found: Drill) -> str:
    """For a person."""
    lines = [
        f"{stack}: restored backup {found.backup} of stanza {found.stanza} on {found.server} in {duration(found.seconds)}"
    ]
    if found.recovered_to:
        lines.append(f"   recovered to {found.recovered_to:%Y-%m-%d %H:%M:%S %Z} (last transaction)")
    lines.append(
        f"   read {found.tables} tables in {found.databases} databases ({found.encrypted} of them encrypted), "
        f"{found.rows} rows, {size(found.bytes)}"
    )
    lines.append(
        f"   FAILED: {found.problem}" if found.problem else "   all could be read; what was restored is removed"
    )
    return escaped("\n".join(lines)) + "\n"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tde_replication.restore_drill", description="Can the last backup be restored?"
    )
    parser.add_argument("--stack", default=os.environ.get("STACK") or "local", help="default: STACK, else local")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = options(arguments)

    def tell(told: str, kept: bool) -> None:  # noqa: FBT001
        del kept
        sys.stderr.write(escaped(f"{told}\n"))

    try:
        with reported_to(tell):
            found = drill(declared(given.stack, Path.cwd()))
    except UserError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return NOT_TRIED
    sys.stdout.write(text(given.stack, found))
    return FAILED if found.problem else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
