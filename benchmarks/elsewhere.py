"""(g), (h), (j), (m), (n) and (p): every kind of host, where containers and booted machines can run."""

from pathlib import Path

from benchmarks import containers, far, steps, switchover_elsewhere, throughput
from benchmarks.machines import Machines
from benchmarks.table import Table
from tests.docker.lab import CannotRunError

MEASURES = {
    "g": throughput.elsewhere,
    "h": steps.from_nothing,
    "jp": far.measure,
    "m": switchover_elsewhere.measure,
    "n": containers.measure,
}


def measure(root: Path, table: Table) -> None:
    if "g" in table.wanted:
        throughput.here(table)
    with Machines() as machines:
        for letters, measure_it in MEASURES.items():
            if set(letters) & set(table.wanted):
                directory = root / letters
                directory.mkdir(mode=0o755)
                try:
                    measure_it(directory, machines, table)
                except CannotRunError as reason:
                    table.remark(f"({letters}) DID NOT RUN in containers and by ssh: {reason}")
