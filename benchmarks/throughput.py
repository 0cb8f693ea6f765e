"""(g): commands and bytes through each kind of host, against subprocess, `ssh` and `docker exec` doing the same.

Plain ssh shares its connection too. Files lie in memory, so that no disk is measured.
"""

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmarks.clone import account_prefix
from benchmarks.machines import Machines
from benchmarks.table import Row, Table
from tde_replication import hosts
from tde_replication.hosts.base import Host
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.waiting import until
from tests.docker.lab import BINARIES, ROOM, server_container
from tests.ssh.booted import USER

COMMANDS = 50
MIB = 1024**2
CONTENT = 16
"""MiB of one file: it lies there twice while it is replaced, and a container has 64 MiB of such memory."""
DEADLINE = 60.0
MEMORY = PurePosixPath("/dev/shm")  # noqa: S108 - a name that nobody can guess in it


@dataclass(frozen=True)
class Way:
    """Two ways to the same account of the same machine: ours, and what comes before a plain command."""

    name: str
    host: Host
    plain: Sequence[str]


def here(table: Table) -> None:
    _measure(Way("local", LocalHost(), account_prefix()), table)


def elsewhere(_root: Path, machines: Machines, table: Table) -> None:
    with _booted(machines) as way:
        _measure(way, table)
    with _container(machines) as way:
        _measure(way, table)


def _measure(way: Way, table: Table) -> None:
    commands = table.row(Row("g", f"{way.name}: commands", "1/s"))
    upward = table.row(Row("g", f"{way.name}: a file of {CONTENT} MiB to it", "MiB/s"))
    downward = table.row(Row("g", f"{way.name}: and from it", "MiB/s"))
    host, content = way.host, os.urandom(CONTENT * MIB)
    file = MEMORY / f"tde-bench-{secrets.token_hex(8)}"

    def plain(*command: str, given: bytes | None = None) -> None:
        subprocess.run([*way.plain, *command], input=given, capture_output=True, check=True)

    for _ in table.pairs(f"g ({way.name})"):
        commands.ours.append(_rate(COMMANDS, lambda: host.run(["/bin/true"], deadline=DEADLINE)))
        commands.plain.append(_rate(COMMANDS, lambda: plain("/bin/true")))
        upward.ours.append(CONTENT * _rate(1, lambda: host.write(file, content, mode=0o600)))
        downward.ours.append(CONTENT * _rate(1, lambda: host.read(file)))
        upward.plain.append(
            CONTENT * _rate(1, lambda: plain("dd", f"of={file}", "bs=1M", "conv=fsync", "status=none", given=content))
        )
        downward.plain.append(CONTENT * _rate(1, lambda: plain("cat", str(file))))
    host.remove(file)


def _rate(count: int, step: Callable[[], object]) -> float:
    began = time.monotonic()
    for _ in range(count):
        step()
    return count / (time.monotonic() - began)


@contextmanager
def _booted(machines: Machines) -> Iterator[Way]:
    machine = machines.laboratory.boot("throughput")[0]
    options = {
        "ControlMaster": "auto",
        "ControlPersist": "60",
        "ControlPath": machine.home / "plain",
        "UserKnownHostsFile": machine.home / "known_hosts",
        "IdentityFile": machine.home / "id",
        "LogLevel": "ERROR",
    }
    words = [f"-o{name}={value}" for name, value in options.items()]
    plain = ["ssh", *words, f"{USER}@{machine.address}", "sudo", "-n", "-u", "postgres"]
    subprocess.run([*plain, "true"], capture_output=True, check=True)  # connects
    host = hosts.host(machine.login().address(unit="none"))
    host.listing(MEMORY)
    yield Way("ssh", host, plain)


@contextmanager
def _container(machines: Machines) -> Iterator[Way]:
    """A server's, for commands go into it while it runs."""
    data = ROOM / "server" / "data"
    with server_container(machines.daemon, machines.image, data) as name:
        host = hosts.host(f"docker://{name}")
        initdb = [str(BINARIES / "initdb"), "--pgdata", str(data), "--auth=trust", "--no-sync"]
        host.run(initdb, deadline=DEADLINE)
        host.start(BINARIES, data)
        until(lambda: host.postmaster(data) is not None, seconds=DEADLINE)
        yield Way("docker", host, ["docker", "exec", "-i", "-u", "postgres", name])
