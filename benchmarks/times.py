"""(a) to (d): a primary and a standby on this machine, made, looked at twice and destroyed."""

from collections.abc import Callable

from benchmarks.others import Ansible, Pglift
from benchmarks.place import cost
from benchmarks.sides import Sides
from benchmarks.stack import Floor
from benchmarks.table import Row, Table, times


class Times:
    """A row for each comparison: ours is one measurement, the plain sides are several."""

    def __init__(self, sides: Sides, table: Table) -> None:
        self._sides = sides
        self._table = table
        self._rows: dict[tuple[str, str, str], Row] = {}

    def run(self) -> None:
        self._declare()
        resources = 0
        for _ in self._table.pairs("a to d"):
            resources = self._ours()
            if self._wants("ad"):
                self._script()
            if self._wants("bcd"):
                with self._sides.floor() as floor:
                    self._floor(floor)
            if self._wants("a"):
                for kind in (Ansible, Pglift):
                    self._other(kind)
        self._table.remark(f"(a) to (d): {resources} resources, providers and the stack itself among them.")

    def _declare(self) -> None:
        made, again, drift = "nothing to streaming", "up with nothing to do", "drift check"
        self._row("a", made, "s", "script", 1.4)
        self._row("a", "the same, of all processes", "CPU s", "script")
        self._row("a", made, "s", "Ansible", 0.5)
        self._row("a", made, "s", "script and pglift")
        for letter, what in (("b", again), ("c", drift)):
            self._row(letter, what, "s", "floor", 1.4)
            self._row(letter, "the same, of all processes", "CPU s", "floor", 1.5)
        self._row("b", again, "s", "Ansible, again")
        self._row("d", "destroy", "s", "script + floor", 1.0)
        self._row("d", "destroy", "s", "script")

    def _row(self, letter: str, what: str, unit: str, against: str, limit: float | None = None) -> None:
        row = Row(letter, what, unit, times(limit) if limit else None, against)
        self._rows[letter, unit, against] = self._table.row(row)

    def _wants(self, letters: str) -> bool:
        return bool(set(letters) & set(self._table.wanted))

    def _ours(self) -> int:
        """Take the number of resources from it."""
        with self._sides.ours("standby1") as ours:
            self._measure("a", ours.from_nothing)
            for letter, step in (("b", ours.up), ("c", ours.drift)):
                if self._wants(letter):
                    self._measure(letter, step)
            resources = ours.resources()
            if self._wants("d"):
                self._measure("d", ours.destroy)
        return resources

    def _measure(self, letter: str, step: Callable[[], object]) -> None:
        took = cost(step)
        for (of, unit, _), row in self._rows.items():
            if of == letter:
                row.ours.append(took.cpu if unit == "CPU s" else took.seconds)

    def _script(self) -> None:
        with self._sides.script() as script:
            made = cost(script.up)
            self._rows["a", "s", "script"].plain.append(made.seconds)
            self._rows["a", "CPU s", "script"].plain.append(made.cpu)
            self._rows["d", "s", "script"].plain.append(cost(script.down).seconds)

    def _floor(self, floor: Floor) -> None:
        floor.up()
        for letter, step in (("b", floor.up), ("c", floor.drift)):
            took = cost(step)
            self._rows[letter, "s", "floor"].plain.append(took.seconds)
            self._rows[letter, "CPU s", "floor"].plain.append(took.cpu)
        if self._wants("d"):
            script = self._rows["d", "s", "script"].plain[-1]
            self._rows["d", "s", "script + floor"].plain.append(script + cost(floor.destroy).seconds)

    def _other(self, kind: type[Ansible] | type[Pglift]) -> None:
        with self._sides.other(kind) as other:
            if isinstance(other, Ansible):
                self._rows["a", "s", "Ansible"].plain.append(cost(other.up).seconds)
                if self._wants("b"):
                    self._rows["b", "s", "Ansible, again"].plain.append(cost(other.up).seconds)
            elif other:
                self._rows["a", "s", "script and pglift"].plain.append(cost(other.up).seconds)
