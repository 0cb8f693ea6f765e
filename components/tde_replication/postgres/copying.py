"""How far a copy has come, in a person's units."""

import re
import time
from collections.abc import Callable

from tde_replication.progress import progress


class Copy:
    """A base backup that has just begun, told in a person's units."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock
        self._began, self._done = clock(), 0

    def tell(self, line: str) -> None:
        """One progress line of pg_basebackup: " 1024/4096 kB (25%), 0/1 tablespace"."""
        if found := re.match(r"\s*(\d+)/(\d+) kB", line):
            done, total = (int(number) * 1024 for number in found.groups())
            self._done = done
            rate, seconds = self._rate, self._seconds
            left = f", about {_duration((total - done) / rate)} left" if 0 < done < total and seconds > 2 else ""  # noqa: PLR2004
            percent = min(100, done * 100 // max(total, 1))
            progress(
                f"{self._what}: {amount(done)} of {amount(max(done, total))} ({percent} %), {amount(rate)}/s{left}"
            )

    @property
    def rate(self) -> int | None:
        """Bytes a second until now; None where nothing was told."""
        return int(self._rate) or None

    @property
    def _seconds(self) -> float:
        return max(self._clock() - self._began, 0.001)

    @property
    def _rate(self) -> float:
        return self._done / self._seconds


def amount(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004
            return f"{count:.0f} {unit}" if unit in {"B", "KiB"} else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
