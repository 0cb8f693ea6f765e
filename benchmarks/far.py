"""(j), (p): a preview and the status of a primary and eight standbys, each on a machine of its own that is far away."""

import shutil
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.line import slow_line
from benchmarks.machines import Machines, on_machine
from benchmarks.ours import ROOM
from benchmarks.place import cost
from benchmarks.stack import Stack
from benchmarks.table import Row, Table, at_most
from tests.ssh.booted import BINARIES

SERVERS = 9
ONE_WAY = 0.010
"""Seconds."""
SSH_PORT = 22
SSH = shutil.which("ssh") or "ssh"
LOOK = """
socket=$(ls /run/*/.s.PGSQL.* | grep -v lock)
exec "$1/psql" --no-psqlrc --host "${socket%/*}" --port "${socket##*.}" <<'SQL'
SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), timeline_id FROM pg_control_checkpoint();
SELECT application_name, state, sync_state, sent_lsn, write_lag, flush_lag, replay_lag FROM pg_stat_replication;
SELECT slot_name, active, wal_status, safe_wal_size FROM pg_replication_slots;
SELECT datname, pg_database_size(datname), checksum_failures FROM pg_stat_database WHERE datname IS NOT NULL;
SELECT archived_count, failed_count FROM pg_stat_archiver
SQL
"""
"""What somebody asks each server by hand."""


def measure(root: Path, machines: Machines, table: Table) -> None:
    far = table.row(Row("j", "preview of 1 + 8 by ssh, 20 ms away", "s", at_most(5.0, lambda row: row.ours, "5 s")))
    near = table.row(Row("j", "the same, without that delay", "s"))
    far_status = table.row(
        Row("p", "status of 1 + 8 by ssh, 20 ms away", "s", at_most(3.0, lambda row: row.ours, "3 s"))
    )
    near_status = table.row(Row("p", "the same, without that delay", "s"))
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
        for servers in ways.values():
            servers["db0"]["settings"] = ROOM
        stack = Stack(root)
        stack.vault()
        stack.init()
        for delay, row, status in ((0.0, near, near_status), (ONE_WAY, far, far_status)):
            stack.write({"disposable": True, "primary": "db0", "servers": ways[delay]})
            stack.up()
            for _ in table.pairs(f"j and p ({row.what})"):
                row.ours.append(cost(stack.preview).seconds)
                status.ours.append(cost(stack.status).seconds)
                status.plain.append(cost(partial(_by_psql, ways[delay].values())).seconds)
            stack.destroy()


def _by_psql(servers: Iterable[dict[str, Any]]) -> None:
    """The same of each server, in turn: as a person asks, or a script of theirs."""
    for server in servers:
        host = server["host"]
        options = [
            f"-i{host['key']}",
            f"-oUserKnownHostsFile={host['knownHosts']}",
            f"-p{host['port']}",
            "-oLogLevel=ERROR",
        ]
        asked = ["sudo", "-u", "postgres", "sh", "-s", BINARIES]
        subprocess.run(
            [SSH, *options, f"{host['user']}@{host['ssh']}", *asked],
            input=LOOK,
            capture_output=True,
            text=True,
            check=True,
        )
