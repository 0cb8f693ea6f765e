"""Sizes and times for people, and names of machines as they may be shown."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
STEP = 1024
MINUTE, HOUR, DAY = 60, 3600, 86400


def size(number: int | None) -> str:
    if number is None:
        return "an unknown amount"
    value, unit = float(number), 0
    while abs(value) >= STEP and unit < len(UNITS) - 1:
        value, unit = value / STEP, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Whole units of a person: "12 days", "3 h", "0.2 s"."""
    if seconds is None:
        return "an unknown time"
    if seconds < MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - one digit
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min"
    if seconds < 2 * DAY:
        return f"{seconds // HOUR:.0f} h"
    return f"{seconds // DAY:.0f} days"
