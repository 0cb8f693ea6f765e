"""Waiting for what no event announces, and for commands: never for ever, and not long after somebody pressed Ctrl-C."""

import threading
import time
from collections.abc import Callable
from typing import Self

from tde_replication.errors import UserError

FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.1
GRACE = 10.0
"""Seconds after an interruption in which a step may still come to its end."""

_interrupted: list[float] = []
_limits: set["Limit"] = set()
_lock = threading.Lock()


def interrupt() -> None:
    """From now on, let nobody wait for longer than the grace, and no command that runs now."""
    with _lock:
        _interrupted.append(time.monotonic())
        running = list(_limits)
    for limit in running:
        limit.end_within(GRACE)


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


class Limit:
    """Calls `end` once `seconds` have passed, or the grace after an interruption, unless the block has ended before.

    What begins after an interruption cleans up, and has its `seconds`.
    """

    def __init__(self, seconds: float, end: Callable[[], None]) -> None:
        self._seconds, self._end = seconds, end
        self._timers: list[threading.Timer] = []
        self.passed = False
        """Whether `end` was called."""
        self._early = False

    def __enter__(self) -> Self:
        with _lock:
            _limits.add(self)
        self._start(self._seconds, early=False)
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            _limits.discard(self)
            for timer in self._timers:
                timer.cancel()

    def end_within(self, seconds: float) -> None:
        """For it was interrupted."""
        self._start(seconds, early=True)

    def expect_not_interrupted(self, what: str) -> None:
        """Raises `UserError` where `what` was ended by an interruption."""
        if self._early:
            raise UserError(f"interrupted while {what} ran: the next run goes on from here")

    def _start(self, seconds: float, *, early: bool) -> None:
        timer = threading.Timer(seconds, self._pass, kwargs={"early": early})
        timer.daemon = True
        with _lock:
            if early and self not in _limits:
                return
            self._timers.append(timer)
            timer.start()

    def _pass(self, *, early: bool) -> None:
        with _lock:
            if self.passed or self not in _limits:
                return
            self.passed, self._early = True, early
        self._end()
