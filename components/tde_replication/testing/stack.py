"""The stack of a test cluster, in its directory: commands of Pulumi by the Automation API, and its end."""

import json
import os
import shutil
import sys
import time
from functools import cache
from pathlib import Path

from pulumi.automation import PulumiCommand
from pulumi.automation.errors import CommandError

import tde_replication
from tde_replication.errors import UserError
from tde_replication.testing import directories

PATIENCE = 120.0
"""Seconds in which an `up` that was interrupted, or whose tests were killed, is expected to end."""


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

    Not by a `Stack` of the Automation API: that runs four more commands for each of these.
    """
    if not shutil.which("pulumi"):
        raise UserError("a test cluster needs Pulumi: there is no `pulumi` on PATH (docs/testing.md)")
    environment = {
        **package(),
        "PULUMI_BACKEND_URL": f"file://{place / 'state'}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE": (place / "passphrase").read_text(),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_STACK": place.name,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    try:
        _command().run(list(arguments), str(place), environment)
    except CommandError as error:
        text = str(error)
        what = " ".join(arguments[:2] if arguments[0] == "stack" else arguments[:1])
        raise UserError(f"pulumi {what} failed: {(text.partition('Diagnostics:')[2] or text).strip()}") from None


def package() -> dict[str, str]:
    """What lets another process import this package from where it is."""
    directory = Path(tde_replication.__file__).parents[1]
    if directory.is_relative_to(sys.prefix):
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])}


@cache
def _command() -> PulumiCommand:
    return PulumiCommand(skip_version_check=True)  # it would run one more command


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
