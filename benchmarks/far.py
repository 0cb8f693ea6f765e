"""(j): a preview of a primary and eight standbys, each on a machine of its own that is far away."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.line import slow_line
from benchmarks.machines import Machines, on_machine
from benchmarks.place import cost
from benchmarks.stack import Stack
from benchmarks.table import Row, Table, at_most

SERVERS = 9
ONE_WAY = 0.010
"""Seconds."""
SSH_PORT = 22


def preview(root: Path, machines: Machines, table: Table) -> None:
    far = table.row(Row("j", "preview of 1 + 8 by ssh, 20 ms away", "s", at_most(10.0, lambda row: row.ours, "10 s")))
    near = table.row(Row("j", "the same, without that delay", "s"))
    booted = machines.laboratory.boot(*(f"db{n}" for n in range(SERVERS)))
    known_hosts = root / "known_hosts"
    with ExitStack() as lines:
        ways: dict[float, dict[str, Any]] = {}
        for network, delay in enumerate((ONE_WAY, 0.0), start=1):
            ways[delay] = {}
            for n, one in enumerate(booted):
                here = f"127.0.{network}.{n + 1}"  # a machine has a name of its own
                port = lines.enter_context(slow_line(one.address, SSH_PORT, here=here, way=delay))
                ways[delay][f"db{n}"] = on_machine(one, ssh=here, port=port, knownHosts=str(known_hosts))
                with known_hosts.open("a") as known:
                    keys = one.root("cat /etc/ssh/ssh_host_*_key.pub").splitlines()
                    known.writelines(f"[{here}]:{port} {key}\n" for key in keys)
        stack = Stack(root)
        stack.vault()
        stack.init()
        for delay, row in ((0.0, near), (ONE_WAY, far)):
            stack.write({"disposable": True, "primary": "db0", "servers": ways[delay]})
            stack.up()
            for _ in table.pairs(f"j ({row.what})"):
                row.ours.append(cost(stack.preview).seconds)
            stack.destroy()
