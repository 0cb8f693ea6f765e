"""python -m tde_replication.report: the state of a stack's cluster as one HTML page.

It asks what `python -m tde_replication.status` asks, and changes nothing. Exit status: 0, the page is written, whatever it says;
1, it is not.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tde_replication.errors import UserError
from tde_replication.report.page import report
from tde_replication.review import Review, read, review
from tde_replication.status.declared import declared
from tde_replication.status.observation import observe
from tde_replication.status.verdict import judge


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tde_replication.report", description="A cluster as an HTML page.")
    parser.add_argument("--stack", default=os.environ.get("STACK") or "local", help="default: STACK, else local")
    parser.add_argument("--preview", type=Path, help="JSON of a preview of this stack: adds what was changed by hand")
    parser.add_argument("file", type=Path, help="where the page is written")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = options(arguments)
    previewed = _review(given.preview, given.stack) if given.preview else None
    snapshot = observe(declared(given.stack, Path.cwd()))
    verdict = judge(snapshot)
    given.file.write_text(report(snapshot, verdict, previewed))
    sys.stdout.write(f"{given.file}: {given.stack} is {verdict.level.word}\n")
    return 0


def _review(file: Path, stack: str) -> Review:
    found = review(read(file.read_text(errors="replace"), str(file)))
    if found.stack != stack:
        raise UserError(f"{file} is a preview of stack {found.stack}, and the page is about {stack}")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
