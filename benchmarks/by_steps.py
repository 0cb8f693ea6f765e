"""A primary and a standby by the steps alone, typed by docker or ssh: no stack, no Vault, no check."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.docker.lab import BINARIES as IN_CONTAINER
from tests.ssh.booted import BINARIES as ON_MACHINE, USER, Booted

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
SLOT = """
"$1/psql" --no-psqlrc -XqAt -h /tmp -U postgres -c "SELECT pg_create_physical_replication_slot('steps', true)" >/dev/null
"""
STOP = """
set -e
"$1/psql" --no-psqlrc -XqAt -h /tmp -U postgres -c CHECKPOINT >/dev/null
(umask 077 && : >"$2/data/standby.signal")
"$1/pg_ctl" stop --silent -m fast -D "$2/data"
case $("$1/pg_controldata" "$2/data") in *" shut down
"*) ;; *) exit 1 ;; esac
"""
PROMOTE = """
"$1/pg_ctl" promote --silent --wait -D "$2/data"
"""
FOLLOW = """
set -e
rm -rf "$2/data/pg_replslot/steps"
printf "%s\\n" "primary_conninfo = 'host=$3 user=replicator password=steps'" "primary_slot_name = 'steps'" \
    >>"$2/data/postgresql.auto.conf"
"$1/pg_ctl" start --silent --wait -D "$2/data" -l "$2/log"
"""
ROOM = "/var/lib/postgresql/steps"
NAMES = ("tde-bench-steps1", "tde-bench-steps2")
DOCKER = shutil.which("docker") or "docker"


def typed(way: Sequence[str], script: str, *arguments: str) -> None:
    subprocess.run([*way, "sh", "-s", "--", *arguments], input=script, capture_output=True, text=True, check=True)


@dataclass(frozen=True)
class Steps:
    """Two machines, the first one the primary's to begin with."""

    ways: Sequence[Sequence[str]]
    """To run a command there as the servers' account."""
    addresses: Sequence[str]
    programs: str

    def make(self) -> None:
        primary, standby = self.ways
        typed(primary, PRIMARY, self.programs, ROOM)
        typed(standby, STANDBY, self.programs, ROOM, self.addresses[0])
        typed(primary, STREAMING, self.programs)

    def switch(self, former: int, to: int) -> None:
        old, new = self.ways[former], self.ways[to]
        typed(new, SLOT, self.programs)
        typed(old, STOP, self.programs, ROOM)
        typed(new, PROMOTE, self.programs, ROOM)
        typed(old, FOLLOW, self.programs, ROOM, self.addresses[to])
        typed(new, STREAMING, self.programs)


def by_ssh(machines: Sequence[Booted], *options: str) -> Steps:
    """With the directory for it."""
    home = machines[0].home
    ssh = ["ssh", f"-i{home}/id", f"-oUserKnownHostsFile={home}/known_hosts", "-oLogLevel=ERROR", *options]
    addresses = [machine.address for machine in machines]
    steps = Steps([[*ssh, f"{USER}@{one}", "sudo", "-u", "postgres"] for one in addresses], addresses, ON_MACHINE)
    for way in steps.ways:
        typed(way, 'mkdir -p "$1"', ROOM)
    return steps


def emptied(steps: Steps) -> None:
    for way in reversed(steps.ways):
        typed(way, '"$1/pg_ctl" stop --silent -m immediate -D "$2/data"; rm -rf "$2"', steps.programs, ROOM)


def _docker(*words: str, check: bool = True) -> None:
    subprocess.run([DOCKER, *words], capture_output=True, check=check)


def by_docker(image: str, *ports: int) -> Steps:
    """With network, volumes and containers; at these ports of this machine."""
    _docker("network", "create", NAMES[0])
    for number, name in enumerate(NAMES):
        _docker("volume", "create", name)
        mount = ["-v", f"{name}:{ROOM}", "--network", NAMES[0], "--user", "root"]
        published = ["-p", f"127.0.0.1:{ports[number]}:5432"] if ports else []
        _docker("run", "-d", "--init", "--name", name, *mount, *published, image, "sleep", "infinity")
        _docker("exec", name, "chown", "postgres", ROOM)
    ways = [["docker", "exec", "-i", "-u", "postgres", name] for name in NAMES]
    return Steps(ways, NAMES, str(IN_CONTAINER))


@contextmanager
def removed() -> Iterator[None]:
    try:
        yield
    finally:
        for words in (("rm", "-f", "-v"), ("volume", "rm")):
            _docker(*words, *NAMES, check=False)
        _docker("network", "rm", NAMES[0], check=False)
