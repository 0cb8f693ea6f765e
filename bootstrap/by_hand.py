"""Says in one sentence why a `pulumi` by hand could not use its stack's Vault, before it starts.

The engine refreshes all resources at once, before the program: each of pulumi-vault's would say it, twice and after retries.
env.sh has the shell ask this first: python -m bootstrap.by_hand DIRECTORY ARGUMENTS OF PULUMI …
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap.project import HERE, Project
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
    if _project(directory / (_option(words, "-C", "--cwd") or "")) != project.root:
        return None
    stack = _option(words, "-s", "--stack") or environ.get("PULUMI_STACK") or _selected(project)
    file = project.root / "stacks" / f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    why = why_unusable(file, environ) if stack and file.exists() else None
    return f"{why} {GONE}" if why and _command(words) in DESTROY else why


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
    if why := why_not(HERE, Path(sys.argv[1]), sys.argv[2:], os.environ):
        sys.exit(f"error: {why}")
