"""The one table: min, median and max of each side, and of the pairs' ratios."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

WIDTH = 46


@dataclass(frozen=True)
class Target:
    text: str
    reached: Callable[["Row"], bool]


@dataclass
class Row:
    """One comparison; measurement n of each side was made in turn. Without a script's side there is nothing to compare with."""

    letter: str
    what: str
    unit: str
    target: Target | None = None
    ours: list[float] = field(default_factory=list)
    script: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [one / other for one, other in zip(self.ours, self.script, strict=True)] if self.script else []

    @property
    def differences(self) -> list[float]:
        return [one - other for one, other in zip(self.ours, self.script, strict=True)] if self.script else []

    def __str__(self) -> str:
        cells = [_spread(values, digits) for values, digits in ((self.ours, 2), (self.script, 2), (self.ratios, 2))]
        verdict = ""
        if self.target:
            verdict = f"{self.target.text}: {'met' if self.target.reached(self) else 'MISSED'}"
        difference = f"{median(self.differences):+.2f}" if self.script else "-"
        head = f"({self.letter}) {self.what}, {self.unit}"
        return f"{head:<{WIDTH}} {cells[0]:>20} {cells[1]:>20} {cells[2]:>20} {difference:>9}   {verdict}".rstrip()


def heading() -> str:
    spread = "min median max"
    top = f"{'':<{WIDTH}} {'ours':>20} {'script':>20} {'ours / script':>20} {'ours -':>9}"
    return f"{top}\n{'':<{WIDTH}} {spread:>20} {spread:>20} {spread:>20} {'script':>9}   target"


def at_most(limit: float, of: Callable[[Row], Sequence[float]], text: str) -> Target:
    return Target(text, lambda row: median(of(row)) <= limit)


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    if max(values) >= 100:  # noqa: PLR2004
        digits = 0
    return " ".join(f"{value:6.{digits}f}" for value in (min(values), median(values), max(values)))
