"""Waiting for what no event announces: polled in milliseconds, never for ever, and not long after somebody pressed Ctrl-C."""

import time
from collections.abc import Callable

from tde_replication.errors import UserError

FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.1
GRACE = 10.0
"""Seconds after an interruption in which a step may still come to its end."""

_interrupted: list[float] = []


def interrupt() -> None:
    """From now on, let nobody wait for longer than the grace."""
    _interrupted.append(time.monotonic())


def until(reached: Callable[[], bool], *, seconds: float) -> bool:
    """Ask until `reached`, with growing pauses; False when `seconds` have passed first.

    Raises `UserError` where a person does not want to wait.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while not reached():
        now = time.monotonic()
        if now >= deadline:
            return False
        if _interrupted and now >= _interrupted[0] + GRACE:
            raise UserError("interrupted while waiting: the next run goes on from here")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return True
