"""What the function `pulumi` of env.sh does besides: python -m bootstrap.by_hand before|after DIRECTORY ARGUMENTS OF PULUMI …

Before: it says in one sentence why that command could not use its stack's Vault. The engine refreshes all resources at once,
before the program: each of pulumi-vault's would say it, twice and after retries. After a `destroy`: what Pulumi was just making
when it was killed is taken out of the state of a stack that is gone.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap.project import HERE, Project
from bootstrap.stack import Stack
from bootstrap.vault_check import GONE, why_unusable

DESTROY = {"destroy", "down", "dn"}
COMMANDS = {"preview", "pre", "up", "update", "refresh"} | DESTROY
"""Those that refresh, with their other names."""
WITH_VALUE = {
    "-C",
    "--cwd",
    "-s",
    "--stack",
    "--color",
    "-v",
    "--verbose",
    "--tracing",
    "--profiling",
    "--memprofilerate",
}
"""Options that may stand before the command, with a value in the next word."""
WITHOUT = {"--refresh=false", "-r=false", "-h", "--help"}


def why_not(project: Project, directory: Path, words: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """What keeps that command from using the Vault of its stack; None where nothing does, or it is not this project's."""
    if _command(words) not in COMMANDS or WITHOUT & set(words):
        return None
    stack = _stack(project, directory, words, environ)
    file = project.root / "stacks" / f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    why = why_unusable(file, environ) if stack and file.exists() else None
    return f"{why} {GONE}" if why and _command(words) in DESTROY else why


def tidy(project: Project, directory: Path, words: Sequence[str], environ: Mapping[str, str]) -> int:
    """After a command that has come to its end; the exit status."""
    stack = _stack(project, directory, words, environ) if _command(words) in DESTROY else ""
    return Stack(project, stack, dict(environ), embedded_vault=False).forget_pending() if stack else 0


def _stack(project: Project, directory: Path, words: Sequence[str], environ: Mapping[str, str]) -> str:
    """Which one such a command is for; empty where it is not this project's."""
    if _project(directory / (_option(words, "-C", "--cwd") or "")) != project.root:
        return ""
    return _option(words, "-s", "--stack") or environ.get("PULUMI_STACK") or _selected(project)


def _command(words: Sequence[str]) -> str:
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            return word
        if word in WITH_VALUE:
            next(rest, None)
    return ""


def _option(words: Sequence[str], short: str, long: str) -> str:
    """The value of an option, in each of the ways in which it can be written."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in (short, long):
            return following
        if word.startswith(f"{long}="):
            return word.removeprefix(f"{long}=")
        if word.startswith(short) and not word.startswith("--"):
            return word.removeprefix(short).removeprefix("=")
    return ""


def _project(directory: Path) -> Path | None:
    """Where Pulumi finds its project from there."""
    directory = directory.resolve()
    return next((place for place in (directory, *directory.parents) if (place / "Pulumi.yaml").exists()), None)


def _selected(project: Project) -> str:
    command = ["pulumi", "stack", "--show-name", "--non-interactive"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    when, where, *arguments = sys.argv[1:]
    if when == "after":
        sys.exit(tidy(HERE, Path(where), arguments, os.environ))
    if why := why_not(HERE, Path(where), arguments, os.environ):
        sys.exit(f"error: {why}")
