"""Which of Pulumi's own programs the tests run with, and how they end: those look for their engine every five minutes."""

import shutil
from functools import cache
from pathlib import Path

from bootstrap.engine import LANGUAGE_HOST
from bootstrap.project import is_script

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
