"""python -m tde_replication.status: the live state of a stack's cluster.

It reads the stack file and asks the servers and the Vault. It changes nothing, and needs neither the lock nor the program of a
Pulumi that may be running. Exit status: 0 well, 1 degraded, 2 broken, 3 cannot tell.
"""

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tde_replication.errors import UserError
from tde_replication.status import document, metrics
from tde_replication.status.declared import declared
from tde_replication.status.finding import Level, Verdict
from tde_replication.status.model import Snapshot
from tde_replication.status.observation import observe
from tde_replication.status.text import text
from tde_replication.status.verdict import judge

PAUSE = 2.0
"""Seconds between two looks of `--watch`."""
CLEAR = "\x1b[H\x1b[2J"
TIMES = re.compile(r"\d+(?:\.\d+)? (?:s|min|h|days)\b")
"""As `words.duration` writes them."""
Rendering = Callable[[Snapshot, Verdict], str]


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tde_replication.status", description="How is my cluster?")
    parser.add_argument("--stack", default=os.environ.get("STACK") or "local", help="default: STACK, else local")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document, see docs/status.md")
    form.add_argument("--prometheus", action="store_true", help="metrics for node_exporter's textfile collector")
    form.add_argument("--watch", action="store_true", help="show it again when something has changed, until Ctrl-C")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = options(arguments)
    directory = Path.cwd()
    if given.watch:
        return _watch(given.stack, directory)
    rendering: Rendering = text
    if given.json:
        rendering = document.document
    elif given.prometheus:
        rendering = metrics.metrics
    try:
        shown, level = _look(given.stack, directory, rendering)
    except UserError as problem:
        sys.stderr.write(f"error: {problem}\n")
        if given.json:
            sys.stdout.write(document.problem(given.stack, str(problem)))
        elif given.prometheus:
            sys.stdout.write(metrics.problem(given.stack, time.time()))
        return Level.UNKNOWN.value
    sys.stdout.write(shown)
    return level.value


def _look(stack: str, directory: Path, rendering: Rendering) -> tuple[str, Level]:
    snapshot = observe(declared(stack, directory))
    verdict = judge(snapshot)
    return rendering(snapshot, verdict), verdict.level


def _watch(stack: str, directory: Path) -> int:
    """Until Ctrl-C, which ends it at once, whatever is being asked: nothing here has to be finished.

    A terminal always shows the newest state. A file or pipe gets it only where more has changed than times.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    is_terminal = sys.stdout.isatty()
    before = ""
    while True:
        try:
            shown, _ = _look(stack, directory, text)
        except UserError as problem:
            shown = f"error: {problem}\n"
        compared = shown if is_terminal else TIMES.sub("", shown)
        if compared != before:
            sys.stdout.write((CLEAR if is_terminal else "\n" if before else "") + shown)
            sys.stdout.flush()
            before = compared
        time.sleep(PAUSE)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
