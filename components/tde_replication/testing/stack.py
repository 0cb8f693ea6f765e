"""The stack of a test cluster, in its directory: commands of Pulumi, and its end."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import tde_replication
from tde_replication.errors import UserError
from tde_replication.testing import directories

PATIENCE = 120.0
"""Seconds in which an `up` that was interrupted, or whose tests were killed, is expected to end."""


def create(place: Path, project: str) -> None:
    """A stack without resources, as `pulumi stack init` writes it, which would take half a second; `up` makes the salt of its
    secrets. Pulumi reads the states of all its former versions."""
    state = place / "state" / ".pulumi"
    (state / "stacks" / project).mkdir(parents=True)
    (state / "meta.yaml").write_text("version: 1\n")
    empty = {"version": 3, "checkpoint": {"stack": f"organization/{project}/{place.name}"}}
    (state / "stacks" / project / f"{place.name}.json").write_text(json.dumps(empty))


def destroy(place: Path) -> None:
    """The stack with all it has, and its directory in the end; that stays where it could not. Raises `UserError` then."""
    if (place / "state" / ".pulumi" / "stacks").exists():
        _release(place)
        pulumi(place, "destroy", "--yes", "--skip-preview")
    directories.remove(place)


def sweep() -> list[str]:
    """Destroy what processes left that were killed. Returns a sentence for each cluster that could not be destroyed."""
    failed = []
    for place in directories.left():
        try:
            destroy(place)
        except UserError as problem:
            failed.append(f"a test cluster of an earlier run is left in {place}: {problem}")
    return failed


def pulumi(place: Path, *arguments: str) -> None:
    """Run the engine on PATH, with the state and passphrase of this directory and nobody else's.

    Not by the Automation API, which takes half a second to load, and runs more commands for each of these.
    """
    program = shutil.which("pulumi")
    if not program:
        raise UserError("a test cluster needs Pulumi: there is no `pulumi` on PATH (docs/testing.md)")
    environment = {
        **os.environ,
        **package(),
        "PULUMI_BACKEND_URL": f"file://{place / 'state'}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE": (place / "passphrase").read_text(),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_STACK": place.name,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    command = [program, *arguments, "--non-interactive"]
    # Not by `run`, which kills it on Ctrl-C: the engine hears of that too, and ends in order.
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        text, _ = process.communicate()
    if process.returncode:
        raise UserError(f"pulumi {arguments[0]} failed: {(text.partition('Diagnostics:')[2] or text).strip()}")


def package() -> dict[str, str]:
    """What lets another process import this package from where it is."""
    directory = Path(tde_replication.__file__).parents[1]
    if directory.is_relative_to(sys.prefix):
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _release(place: Path) -> None:
    """Wait for the `pulumi` that works in there still, and take away the lock of one that was killed."""
    deadline = time.monotonic() + PATIENCE
    while locks := list((place / "state" / ".pulumi" / "locks").rglob("*.json")):
        if not any(map(_is_held, locks)):
            pulumi(place, "cancel", "--yes")
            return
        if time.monotonic() > deadline:
            raise UserError("the `pulumi up` of that run has not ended")
        time.sleep(0.1)


def _is_held(lock: Path) -> bool:
    """Whether the process that wrote this lock of a file backend is there still."""
    try:
        os.kill(int(json.loads(lock.read_text())["pid"]), 0)
    except (ProcessLookupError, ValueError, KeyError):
        return False
    except OSError:  # the lock has just gone, or the process is not ours
        return True
    return True
