"""(m): another server becomes the primary while somebody writes, against the same steps by a script."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle, pairwise

import psycopg

from benchmarks.place import cost
from benchmarks.sides import Sides
from benchmarks.table import Row, Table, plus

SERVERS = ("primary", "standby")
Where = Callable[[str], tuple[str, int]]


def measure(sides: Sides, table: Table) -> None:
    gap = table.row(Row("m", "no writes in a switchover", "s", plus(0.3)))
    whole = table.row(Row("m", "the whole of it", "s", plus(2.5)))
    with sides.ours("standby") as ours:
        ours.from_nothing()

        def switched(_: str, name: str) -> None:
            ours.make_primary(name)
            ours.up()

        _turns(table, gap.ours, whole.ours, ours.where, switched)
    with sides.script() as script:
        script.up()
        _turns(table, gap.plain, whole.plain, script.where, script.switch)


def _turns(
    table: Table, gaps: list[float], wholes: list[float], where: Where, switch: Callable[[str, str], object]
) -> None:
    with _session(where, SERVERS[0]) as session:
        session.execute("CREATE TABLE written (at timestamptz)")
    turns = pairwise(cycle(SERVERS))
    for _ in table.pairs("m"):
        former, name = next(turns)
        with _writing(where) as answered:
            wholes.append(cost(lambda former=former, name=name: switch(former, name)).seconds)  # type: ignore[misc]
        gaps.append(max(later - earlier for earlier, later in pairwise(answered)))


def _session(where: Where, server: str) -> "psycopg.Connection[tuple[object, ...]]":
    directory, port = where(server)
    return psycopg.connect(host=directory, port=port, user="postgres", dbname="postgres", autocommit=True)


@contextmanager
def _writing(where: Where) -> Iterator[list[float]]:
    """When each commit was answered."""
    answered, stop = [time.monotonic()], threading.Event()

    def write() -> None:
        for server in cycle(SERVERS):
            with suppress(psycopg.Error), _session(where, server) as session:
                while not stop.is_set():
                    session.execute("INSERT INTO written VALUES (now())")
                    answered.append(time.monotonic())
                    stop.wait(0.002)
            if stop.wait(0.002):
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join()
