"""(h): from nothing to streaming in containers and on booted machines, against the steps alone, typed by docker or ssh."""

from pathlib import Path
from typing import Any

from benchmarks.by_steps import by_docker, by_ssh, emptied, removed
from benchmarks.machines import Machines, on_machine
from benchmarks.place import cost
from benchmarks.stack import Stack
from benchmarks.table import Row, Table, times
from tests.docker.lab import BINARIES as IN_CONTAINER


def from_nothing(root: Path, machines: Machines, table: Table) -> None:
    containers = table.row(Row("h", "nothing to streaming in containers", "s", times(2.0)))
    booted = table.row(Row("h", "nothing to streaming by ssh", "s", times(1.6)))
    one, two = machines.laboratory.boot("steps1", "steps2")
    server = {"host": {"docker": machines.image}, "binaries": str(IN_CONTAINER)}
    clusters: dict[str, dict[str, Any]] = {
        "docker": {"primary": "db1", "servers": {"db1": server, "db2": server}},
        "ssh": {"disposable": True, "primary": "db1", "servers": {"db1": on_machine(one), "db2": on_machine(two)}},
    }
    for kind, row in (("docker", containers), ("ssh", booted)):
        directory = root / kind
        directory.mkdir(mode=0o755)
        stack = Stack(directory)
        stack.vault()
        stack.init()
        stack.write(clusters[kind])
        for _ in table.pairs(f"h ({kind})"):
            row.ours.append(cost(stack.up).seconds)
            stack.destroy()
            if kind == "ssh":
                row.plain.append(cost(lambda: by_ssh([one, two]).make()).seconds)
                emptied(by_ssh([one, two]))
            else:
                with removed():
                    row.plain.append(cost(lambda: by_docker(machines.image).make()).seconds)
