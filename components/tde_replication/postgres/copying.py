"""How far a copy has come, in a person's units."""

import re

from tde_replication.progress import progress


def tell(what: str, line: str, seconds: float) -> None:
    """One progress line of pg_basebackup (" 1024/4096 kB (25%), 0/1 tablespace") in a person's units."""
    if found := re.match(r"\s*(\d+)/(\d+) kB", line):
        done, total = (int(number) * 1024 for number in found.groups())
        rate = done / max(seconds, 0.001)
        left = f", about {_duration((total - done) / rate)} left" if 0 < done < total and seconds > 2 else ""  # noqa: PLR2004
        percent = min(100, done * 100 // max(total, 1))
        progress(f"{what}: {amount(done)} of {amount(max(done, total))} ({percent} %), {amount(rate)}/s{left}")


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
