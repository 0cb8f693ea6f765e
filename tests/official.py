"""Which of Pulumi's own programs the tests run with, and how they end: those look for their engine every five minutes.

`python -m tests.official` fails where one of them is a stand-in.
"""

import os
import shutil
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from bootstrap.engine import LANGUAGE_HOST
from bootstrap.plugins import Plugin, account_home
from bootstrap.project import is_script, is_stand_in

PLUGINS = ("command", "docker", "vault")
END_SECONDS, OFFICIAL_END_SECONDS = 20.0, 330.0


@cache
def has_official_host() -> bool:
    pulumi = shutil.which("pulumi")
    return bool(pulumi) and not is_script(Path(pulumi).resolve().parent / LANGUAGE_HOST)  # type: ignore[arg-type]


def end_seconds() -> float:
    """How long what works for an engine may go on after it was killed."""
    return OFFICIAL_END_SECONDS if has_official_host() else END_SECONDS


def is_official(program: str) -> bool:
    """Whether a process is one of Pulumi's own that look for their engine themselves, by the name of its program."""
    return program.startswith(("pulumi-language-", "pulumi-resource-"))


def plugin(name: str) -> Path | None:
    """Pulumi's own plugin for the installed pulumi-… package, where the account has it."""
    wanted = Plugin(name, version(f"pulumi-{name}"))
    homes = [Path(home) for home in (os.environ.get("PULUMI_HOME"), account_home() / ".pulumi") if home]
    found = (wanted.binary(home) for home in homes)
    return next((binary for binary in found if binary.exists() and not is_stand_in(binary)), None)


def programs(name: str) -> list[str]:
    """What a test of a plugin's behaviour runs on: the stand-in, and the official one where it can be had."""
    return ["stand-in", "official"] if plugin(name) else ["stand-in"]


def missing() -> list[str]:
    """Those of Pulumi's own that the tests do not run with."""
    host = [] if has_official_host() else ["language host"]
    return host + [f"pulumi-{name}" for name in PLUGINS if plugin(name) is None]


if __name__ == "__main__":
    sys.exit(f"error: stand-ins take the place of: {', '.join(found)}" if (found := missing()) else 0)
