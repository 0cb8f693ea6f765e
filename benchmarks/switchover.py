"""(m): another server becomes the primary while somebody writes, against the same steps by a script, and against Patroni."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from pathlib import Path

from psycopg.conninfo import make_conninfo

from benchmarks.patroni import SERVERS
from benchmarks.place import BenchmarkError
from benchmarks.sides import Sides
from benchmarks.table import Row, Table, plus
from benchmarks.writing import Writer, pgbench, prepare

GAP, WHOLE = 0.3, 2.5
"""Seconds that ours may take more than the script: without writes, and in all."""
LOADS = ("idle", "pgbench")
STEADY = 1.0
"""Seconds for a load to be at its work again."""


@dataclass(frozen=True)
class Side:
    """A primary and a standby, in this order, each with a superuser's connection string."""

    dsns: Mapping[str, str]
    switch: Callable[[str, str], object]
    """From the former primary to the next one."""
    follow: Callable[[str], object] = lambda _: None
    """Waits until the former primary follows this server, where the command does not."""
    settle: Callable[[], object] = lambda: None
    """Waits until the next switchover can be asked for."""


@dataclass
class Took:
    """Seconds, one for each turn."""

    gap: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)
    follows: list[float] = field(default_factory=list)


def measure(sides: Sides, table: Table) -> None:
    binaries = sides.installation.binaries
    with sides.ours("standby") as ours:
        ours.from_nothing()

        def switched(_: str, name: str) -> None:
            ours.make_primary(name)
            ours.up()

        own = turns(table, "ours", Side(_here(ours.where), switched), binaries, ours.root)
    with sides.script() as script:
        script.up()
        by_script = turns(table, "script", Side(_here(script.where), script.switch), binaries, script.root)
    against_script(table, "", own, by_script)
    with sides.patroni() as patroni:
        if patroni:
            try:
                patroni.up()
                side = Side(_here(patroni.where), patroni.switch, patroni.until_follows, patroni.settle)
                _against_patroni(table, own, turns(table, "Patroni", side, binaries, patroni.root))
            except BenchmarkError as error:
                table.remark(f"(m) DID NOT RUN against Patroni: {error}")


def _here(where: Callable[[str], tuple[str, int]]) -> dict[str, str]:
    places = {name: where(name) for name in SERVERS}
    return {name: superuser(host, port) for name, (host, port) in places.items()}


def superuser(host: str, port: int) -> str:
    return make_conninfo(host=host, port=port, user="postgres", dbname="postgres")


def turns(table: Table, what: str, side: Side, binaries: Path, root: Path) -> dict[str, Took]:
    """There and back, without a load and with one."""
    turn = _Turns(side)
    idle, loaded = Took(), Took()
    for _ in table.pairs(f"m ({what}, idle)"):
        turn.into(idle)
    with pgbench(binaries, side.dsns, turn.primary, root):
        for _ in table.pairs(f"m ({what}, pgbench)"):
            time.sleep(STEADY)
            turn.into(loaded)
    return dict(zip(LOADS, (idle, loaded), strict=True))


class _Turns:
    def __init__(self, side: Side) -> None:
        self._side = side
        self._there_and_back = pairwise(cycle(side.dsns))
        self.primary = next(iter(side.dsns))
        prepare(side.dsns[self.primary])

    def into(self, took: Took) -> None:
        """Measure the next one."""
        former, self.primary = next(self._there_and_back)
        self._side.settle()
        with Writer(list(self._side.dsns.values())) as writer:
            began = time.monotonic()
            self._side.switch(former, self.primary)
            took.command.append(time.monotonic() - began)
            self._side.follow(self.primary)
            took.follows.append(time.monotonic() - began)
            took.gap.append(writer.longest_gap())


def against_script(table: Table, where: str, ours: Mapping[str, Took], script: Mapping[str, Took]) -> None:
    for load in LOADS:
        one, other = ours[load], script[load]
        table.row(Row("m", f"no writes, {where}{load}", "s", plus(GAP), "script", one.gap, other.gap))
        table.row(Row("m", f"all of it, {where}{load}", "s", plus(WHOLE), "script", one.command, other.command))


def _against_patroni(table: Table, ours: Mapping[str, Took], patroni: Mapping[str, Took]) -> None:
    for load in LOADS:
        one, other = ours[load], patroni[load]
        table.row(Row("m", f"no writes, {load}", "s", plus(0), "Patroni", one.gap, other.gap))
        table.row(Row("m", f"all of it, {load}", "s", plus(0), "Patroni", one.command, other.follows))
        table.row(Row("m", f"the command, {load}", "s", plus(0), "patronictl", one.command, other.command))
