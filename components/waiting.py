"""Waiting for what no event announces: polled in milliseconds, never for ever."""

import time
from collections.abc import Callable

FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.1


def until(reached: Callable[[], bool], *, seconds: float) -> bool:
    """Ask until `reached`, with growing pauses; False when `seconds` have passed first."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while not reached():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return True
