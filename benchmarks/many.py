"""(k) and (l): many servers in one stack, and many stacks; each beside fewer of them, in the same run."""

import os
import shutil
from pathlib import Path

import psutil

from benchmarks import processes
from benchmarks.ours import Ours
from benchmarks.place import cost
from benchmarks.sides import Sides
from benchmarks.table import Row, Table, times
from bootstrap.ports import free_ports
from bootstrap.project import say
from tde_replication.hosts.installation import Installation

FEW_STANDBYS, MANY_STANDBYS = 4, 16
FEW_STACKS, MANY_STACKS = 10, 100
LINEAR = 1.25
"""How much more one of many may cost than one of few."""

MIB = 1024**2
STACK_MEMORY, STACK_DISK = 90, 140
"""MiB that a primary and a standby without data hold."""

LOOK_SECONDS = 0.5
"""Among the processes of two hundred servers, a look takes time."""

PREVIEWS = 'for stack; do pulumi preview --expect-no-changes --stack "$stack" || exit; done'


def servers(sides: Sides, table: Table) -> None:
    """(k)"""
    made = _Rows(table, "k", f"1 + {MANY_STANDBYS} from nothing", "s", "server", f"1 + {FEW_STANDBYS}")
    seen = _Rows(table, "k", "its preview", "s", "server", f"1 + {FEW_STANDBYS}")
    held = _Rows(table, "k", "peak memory while it is made", "MiB", "server", f"1 + {FEW_STANDBYS}")
    for _ in table.pairs("k"):
        for count, few in ((MANY_STANDBYS, False), (FEW_STANDBYS, True)):
            names = [f"standby{n}" for n in range(1, count + 1)]
            with sides.ours(*names) as ours:
                made.add(cost(ours.from_nothing).seconds, 1 + count, few=few)
                seen.add(cost(ours.preview).seconds, 1 + count, few=few)
            with sides.ours(*names) as ours, processes.watched() as peak:
                ours.from_nothing()
            held.add(peak.total, 1 + count, few=few)


def stacks(sides: Sides, table: Table) -> None:
    """(l); once, for it takes a quarter of an hour to make them."""
    with sides.directory("stacks") as directory:
        if reason := _no_room(directory):
            table.remark(f"(l) DID NOT RUN: {reason}")
            return
        took = _Rows(table, "l", f"previews of {MANY_STACKS} stacks of 1 + 1", "s", "stack", f"{FEW_STACKS} stacks")
        held = table.row(
            Row("l", "peak memory of that, without servers", "MiB", times(LINEAR), against=f"{FEW_STACKS} stacks")
        )
        fleet = _Fleet(directory, sides.installation)
        fleet.vault()
        for count, few in ((FEW_STACKS, True), (MANY_STACKS, False)):
            fleet.grow(count)
            with processes.watched(every=LOOK_SECONDS, only_new=True) as peak:
                took.add(cost(fleet.preview_all).seconds, count, few=few)
            (held.plain if few else held.ours).append(peak.total)


def _no_room(directory: Path) -> str | None:
    memory, disk = psutil.virtual_memory().available // MIB, shutil.disk_usage(directory).free // MIB
    if memory < MANY_STACKS * STACK_MEMORY:
        return f"{MANY_STACKS} stacks need {MANY_STACKS * STACK_MEMORY} MiB of memory, and {memory} MiB are free."
    if disk < MANY_STACKS * STACK_DISK:
        return f"{MANY_STACKS} stacks need {MANY_STACKS * STACK_DISK} MiB below {directory}, and {disk} MiB are free."
    return None


class _Rows:
    """All of it, and what one of many takes beside one of few."""

    def __init__(self, table: Table, letter: str, what: str, unit: str, each: str, against: str) -> None:
        self._all = table.row(Row(letter, what, unit))
        self._each = table.row(Row(letter, f"the same, for each {each}", unit, times(LINEAR), against=against))

    def add(self, value: float, count: int, *, few: bool) -> None:
        if few:
            self._each.plain.append(value / count)
            return
        self._all.ours.append(value)
        self._each.ours.append(value / count)


class _Fleet(Ours):
    """Stacks of one project, with one Vault: each has servers, files and a state of its own."""

    def __init__(self, root: Path, installation: Installation) -> None:
        super().__init__(root, installation)
        self._stacks: list[str] = []

    def directory(self, server: str) -> Path:
        return self.root / self.stack / server / "data"

    def grow(self, count: int) -> None:
        for n in range(len(self._stacks), count):
            say(f"l: stack {n + 1} of {count}")
            self.stack = f"bench-{os.getpid()}-{n}"
            self.port = free_ports(1)[0]
            self.init()
            self.declare("standby1")
            self.up()
            self._stacks.append(self.stack)

    def preview_all(self) -> None:
        self.run("sh", "-c", PREVIEWS, "sh", *self._stacks)
