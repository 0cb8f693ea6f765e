"""The one table: min, median and max of each side, and of the pairs' ratios."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from bootstrap.project import say

WIDTH = 50
AGAINST = 17


@dataclass(frozen=True)
class Target:
    text: str
    reached: Callable[["Row"], bool]
    """Of a row that was measured."""


@dataclass
class Row:
    """One comparison; measurement n of each side was made in turn. Without a plain side there is nothing to compare with."""

    letter: str
    what: str
    unit: str
    target: Target | None = None
    against: str = ""
    """Which plain side, where there are several: without measurements of it, the row is not printed."""
    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def measured(self) -> bool:
        return bool(self.ours and (self.plain or not self.against))

    @property
    def ratios(self) -> list[float]:
        return [one / other for one, other in zip(self.ours, self.plain, strict=True)] if self.plain else []

    @property
    def differences(self) -> list[float]:
        return [one - other for one, other in zip(self.ours, self.plain, strict=True)] if self.plain else []

    def __str__(self) -> str:
        cells = [_spread(values) for values in (self.ours, self.plain, self.ratios)]
        verdict = ""
        if self.target:
            verdict = f"{self.target.text}: {'met' if self.target.reached(self) else 'MISSED'}"
        difference = f"{median(self.differences):+.2f}" if self.plain else "-"
        head = f"({self.letter}) {self.what}, {self.unit}"
        against = (self.against or "plain") if self.plain else "-"
        numbers = f"{cells[0]:>20} {cells[1]:>20} {cells[2]:>20} {difference:>9}"
        return f"{head:<{WIDTH}} {against:<{AGAINST}} {numbers}   {verdict}".rstrip()


@dataclass
class Table:
    """The rows whose letters are `wanted`, of `runs` pairs each."""

    wanted: str
    runs: int
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """Lines for below the table: what a measure found out besides, and what could not run here."""

    def row(self, row: Row) -> Row:
        """Give the row back, kept where its letter is wanted."""
        if row.letter in self.wanted:
            self.rows.append(row)
        return row

    def pairs(self, what: str) -> Iterator[int]:
        for n in range(1, self.runs + 1):
            say(f"{what}: pair {n} of {self.runs}")
            yield n

    def remark(self, line: str) -> None:
        say(line)
        self.remarks.append(line)

    def __str__(self) -> str:
        spread = "min median max"
        top = f"{'':<{WIDTH}} {'':<{AGAINST}} {'ours':>20} {'plain':>20} {'ours / plain':>20} {'ours -':>9}"
        heads = [
            top,
            f"{'':<{WIDTH}} {'plain':<{AGAINST}} {spread:>20} {spread:>20} {spread:>20} {'plain':>9}   target",
        ]
        return "\n".join([*heads, *(str(row) for row in self.rows if row.measured)])


def at_most(limit: float, of: Callable[[Row], Sequence[float]], text: str) -> Target:
    return Target(text, lambda row: median(of(row)) <= limit)


def times(limit: float) -> Target:
    """At most so many times the plain side."""
    return at_most(limit, lambda row: row.ratios, f"{limit:g} x")


def plus(limit: float) -> Target:
    """At most so much more than the plain side."""
    return at_most(limit, lambda row: row.differences, f"plain + {limit:g}")


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    digits = 0 if max(values) >= 100 else 2  # noqa: PLR2004
    return " ".join(f"{value:6.{digits}f}" for value in (min(values), median(values), max(values)))
