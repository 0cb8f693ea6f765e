"""python -m tde_replication.report: the state of a stack's cluster as one HTML page.

It asks what `python -m tde_replication.status` asks, with `--drift` also what `pulumi preview` asks, and changes nothing.
Exit status: 0, the page is written, whatever it says; 1, it is not.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tde_replication.errors import UserError
from tde_replication.report.page import report
from tde_replication.review import Review, read, review
from tde_replication.status.declared import declared
from tde_replication.status.encryption_checks import not_encrypted
from tde_replication.status.observation import observe
from tde_replication.status.verdict import judge


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tde_replication.report", description="A cluster as an HTML page.")
    parser.add_argument("--stack", default=os.environ.get("STACK") or "local", help="default: STACK, else local")
    drift = parser.add_mutually_exclusive_group()
    drift.add_argument("--drift", action="store_true", help="add what was changed by hand: it runs `pulumi preview`")
    drift.add_argument("--preview", type=Path, help="the same, from the JSON of a preview of this stack")
    parser.add_argument("file", type=Path, help="where the page is written")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = options(arguments)
    previewed = None
    if given.preview:
        previewed = _review(given.preview.read_text(errors="replace"), str(given.preview), given.stack)
    elif given.drift:
        previewed = _review(_preview(given.stack), "the preview", given.stack)
    snapshot = observe(declared(given.stack, Path.cwd()))
    verdict = judge(snapshot)
    given.file.write_text(report(snapshot, verdict, previewed))
    clear = ", NOT ENCRYPTED" if not_encrypted(snapshot) else ""
    sys.stdout.write(f"{given.file}: {given.stack} is {verdict.level.word}{clear}\n")
    return 0


def _preview(stack: str) -> str:
    """The JSON of `pulumi preview`. One that fails has told what it found until then, and why it failed."""
    command = ["pulumi", "preview", "--json", "--non-interactive", "--stack", stack]
    environ = {**os.environ, "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true"}
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as why:
        raise UserError(f"pulumi cannot be run: {why.strerror}") from None
    if done.returncode and not done.stdout.strip():
        raise UserError(f"`pulumi preview` failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _review(text: str, source: str, stack: str) -> Review:
    found = review(read(text, source))
    if found.stack and found.stack != stack:
        raise UserError(f"{source} is a preview of stack {found.stack}, and the page is about {stack}")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
