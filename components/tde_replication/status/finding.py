"""What the checks say."""

from dataclasses import dataclass
from enum import Enum
from typing import Self


class Level(Enum):
    """In order from bad to good; the value is the exit status. These are the statuses of a Nagios plugin, in its order too."""

    BROKEN = 2
    DEGRADED = 1
    UNKNOWN = 3
    WELL = 0

    @property
    def word(self) -> str:
        return "CANNOT TELL" if self is Level.UNKNOWN else self.name


@dataclass(frozen=True)
class Finding:
    level: Level
    check: str
    """A short constant name of what was checked, for programs."""
    server: str
    """Its name; empty: the whole cluster."""
    text: str
    """What is wrong, and what to do next."""
    page: str = ""
    """Of this project's documentation, for whoever has it."""

    @property
    def whole(self) -> str:
        return f"{self.text} ({self.page})" if self.page else self.text


@dataclass(frozen=True)
class Verdict:
    findings: tuple[Finding, ...]
    """The worst first."""

    @classmethod
    def of(cls, findings: list[Finding]) -> Self:
        order = list(Level)
        return cls(tuple(sorted(findings, key=lambda finding: order.index(finding.level))))

    @property
    def level(self) -> Level:
        return self.findings[0].level if self.findings else Level.WELL
