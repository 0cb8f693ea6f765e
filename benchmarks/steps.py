"""(h): from nothing to streaming in containers and on booted machines, against the steps alone, typed by docker or ssh."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machines import Machines, on_machine
from benchmarks.place import cost
from benchmarks.stack import Stack
from benchmarks.table import Row, Table, times
from tests.docker.lab import BINARIES as IN_CONTAINER
from tests.ssh.booted import BINARIES as ON_MACHINE, USER

# $1 programs, $2 directory, $3 the primary's address
PRIMARY = """
set -e
"$1/initdb" --pgdata "$2/data" --username postgres --auth-local trust --auth-host scram-sha-256 --encoding UTF8 \
    --locale-provider builtin --locale C.UTF-8 --data-checksums >/dev/null
printf "%s\\n" "listen_addresses = '*'" "unix_socket_directories = '/tmp'" "max_slot_wal_keep_size = '4GB'" \
    >>"$2/data/postgresql.auto.conf"
echo "host replication replicator all scram-sha-256" >>"$2/data/pg_hba.conf"
"$1/pg_ctl" start --silent --wait -D "$2/data" -l "$2/log"
"$1/psql" --no-psqlrc -XqAt -h /tmp -U postgres -c "CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'steps'" \
    -c "SELECT pg_create_physical_replication_slot('steps', true)" >/dev/null
"""
STANDBY = """
set -e
"$1/pg_basebackup" --pgdata "$2/data" --dbname "host=$3 user=replicator password=steps" --wal-method=stream --slot=steps \
    --checkpoint=fast --write-recovery-conf
"$1/pg_ctl" start --silent --wait -D "$2/data" -l "$2/log"
"""
STREAMING = """
until [ "$("$1/psql" --no-psqlrc -XqAt -h /tmp -U postgres \
    -c "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")" = 1 ]; do sleep 0.02; done
"""


def from_nothing(root: Path, machines: Machines, table: Table) -> None:
    containers = table.row(Row("h", "nothing to streaming in containers", "s", times(2.0)))
    booted = table.row(Row("h", "nothing to streaming by ssh", "s", times(1.6)))
    one, two = machines.laboratory.boot("steps1", "steps2")
    server = {"host": {"docker": machines.image}, "binaries": str(IN_CONTAINER)}
    clusters: dict[str, dict[str, Any]] = {
        "docker": {"primary": "db1", "servers": {"db1": server, "db2": server}},
        "ssh": {"disposable": True, "primary": "db1", "servers": {"db1": on_machine(one), "db2": on_machine(two)}},
    }
    ssh = _ssh(str(one.home))
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
                with _emptied(ssh, one.address, two.address):
                    row.plain.append(cost(lambda: _by_ssh(ssh, one.address, two.address)).seconds)
            else:
                with _removed():
                    row.plain.append(cost(lambda: _by_docker(machines.image)).seconds)


def _typed(way: Sequence[str], script: str, *arguments: str) -> None:
    subprocess.run([*way, "sh", "-s", "--", *arguments], input=script, capture_output=True, text=True, check=True)


def _steps(ways: Sequence[Sequence[str]], programs: str, directory: str, address: str) -> None:
    primary, standby = ways
    _typed(primary, PRIMARY, programs, directory)
    _typed(standby, STANDBY, programs, directory, address)
    _typed(primary, STREAMING, programs)


ROOM = "/var/lib/postgresql/steps"


def _ssh(home: str) -> list[str]:
    return ["ssh", f"-i{home}/id", f"-oUserKnownHostsFile={home}/known_hosts", "-oLogLevel=ERROR"]


def _by_ssh(ssh: Sequence[str], primary: str, standby: str) -> None:
    ways = [[*ssh, f"{USER}@{address}", "sudo", "-u", "postgres"] for address in (primary, standby)]
    for way in ways:
        _typed(way, 'mkdir -p "$1"', ROOM)
    _steps(ways, ON_MACHINE, ROOM, primary)


@contextmanager
def _emptied(ssh: Sequence[str], *addresses: str) -> Iterator[None]:
    yield
    for address in reversed(addresses):
        stop = '"$1/pg_ctl" stop --silent -m immediate -D "$2/data"; rm -rf "$2"'
        _typed([*ssh, f"{USER}@{address}", "sudo", "-u", "postgres"], stop, ON_MACHINE, ROOM)


NAMES = ("tde-bench-steps1", "tde-bench-steps2")


DOCKER = shutil.which("docker") or "docker"


def _docker(*words: str, check: bool = True) -> None:
    subprocess.run([DOCKER, *words], capture_output=True, check=check)


def _by_docker(image: str) -> None:
    _docker("network", "create", NAMES[0])
    ways = []
    for name in NAMES:
        _docker("volume", "create", name)
        mount = ["-v", f"{name}:{ROOM}", "--network", NAMES[0], "--user", "root"]
        _docker("run", "-d", "--init", "--name", name, *mount, image, "sleep", "infinity")
        _docker("exec", name, "chown", "postgres", ROOM)
        ways.append(["docker", "exec", "-i", "-u", "postgres", name])
    _steps(ways, str(IN_CONTAINER), ROOM, NAMES[0])


@contextmanager
def _removed() -> Iterator[None]:
    try:
        yield
    finally:
        for words in (("rm", "-f", "-v"), ("volume", "rm")):
            _docker(*words, *NAMES, check=False)
        _docker("network", "rm", NAMES[0], check=False)
