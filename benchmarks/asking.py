"""(q): how a cluster on this machine is, asked by its command, against Patroni's."""

from benchmarks.place import BenchmarkError, cost
from benchmarks.sides import Sides
from benchmarks.table import Row, Table


def measure(sides: Sides, table: Table) -> None:
    row = table.row(Row("q", "status of 1 + 1 on this machine", "s"))
    with sides.ours("standby") as ours:
        ours.from_nothing()
        row.ours += [cost(lambda: ours.status("--json")).seconds for _ in table.pairs("q (ours)")]
    with sides.patroni() as patroni:
        if patroni:
            try:
                patroni.up()
                row.plain += [cost(patroni.list).seconds for _ in table.pairs("q (Patroni)")]
            except BenchmarkError as error:
                table.remark(f"(q) DID NOT RUN against Patroni: {error}")
