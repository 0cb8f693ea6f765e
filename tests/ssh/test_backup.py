"""A cluster that archives by pgBackRest, the real one of Debian, on machines that share a repository.

The servers have the contract double of pg_tde, which encrypts nothing; its wrappers for encrypted WAL hand on what they get.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tde_replication.hosts.ssh.machine import SshHost
from tde_replication.postgres.marker import MARKER
from tde_replication.postgres.restore import NAME
from tde_replication.waiting import until
from tests.docker.lab import Contained, OwnVault
from tests.engine.workspace import ROOT, Workspace
from tests.ssh.booted import DOUBLE, SHARED, USER, Booted, Lab

CONFIGURATION = f"""\
[global]
repo1-path={SHARED}/repository
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=for tests alone
repo1-retention-full=2
start-fast=y
checksum-page=n
archive-async=n
archive-header-check=n
"""
ARCHIVE = {"pgbackrest": {"stanza": "orders"}}
NAMES = ("db1", "db2")
SEGMENTS = range(4)


class Cluster:
    """Servers db1 and db2, each on a machine of its own."""

    def __init__(self, workspace: Workspace, lab: Lab, bao: Contained, machines: list[Booted]) -> None:
        self.workspace = workspace
        self.machines = dict(zip(NAMES, machines, strict=True))
        self.declared: dict[str, Any] = {
            "disposable": True,
            "vault": {"addressFromServers": bao.seen_from_servers},
            "primary": "db1",
            "servers": {name: self._server(name, lab.subnet) for name in NAMES},
            "archive": ARCHIVE,
            "walEncryption": True,
        }

    def _server(self, name: str, network: str) -> dict[str, Any]:
        machine = self.machines[name]
        known = {"key": str(machine.home / "id"), "knownHosts": str(machine.home / "known_hosts")}
        host = {"ssh": machine.address, "user": USER, "packages": "none", **known}
        return {"host": host, "binaries": DOUBLE, "address": network}

    def write(self, **changed: Any) -> None:
        whole = self.declared | changed
        self.workspace.write({key: value for key, value in whole.items() if value is not None})

    def host(self, name: str) -> SshHost:
        return SshHost(self.machines[name].login().address(unit=f"tde-backup-{name}"))

    def data(self, name: str) -> PurePosixPath:
        return PurePosixPath(f"/var/lib/postgresql/18/tde-backup-{name}/data")

    def sql(self, name: str, query: str) -> list[tuple[Any, ...]]:
        with self.host(name).connect(self.data(name), "postgres") as connection:
            connection.execute("SET event_triggers = on")  # as in a person's own session
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def archived(self, name: str) -> int:
        [[count]] = self.sql(name, "SELECT archived_count FROM pg_stat_archiver")
        return int(count)

    def falls_behind(self, name: str) -> None:
        """Stop a standby, and have the primary write, archive and remove WAL that it needs, with its slot."""
        self.host(name).stop(PurePosixPath(DOUBLE), self.data(name), deadline=60)
        primary = self.machines["db1"]
        primary.root("touch /tmp/began")
        self.sql("db1", "CREATE TABLE IF NOT EXISTS public.written (n int)")
        self.sql("db1", f"SELECT pg_drop_replication_slot('tde_{name}')")
        [[first]] = self.sql("db1", "SELECT pg_walfile_name(pg_current_wal_lsn())")
        before = self.archived("db1")
        for number in SEGMENTS:
            self.sql("db1", f"INSERT INTO public.written VALUES ({number})")
            self.sql("db1", "SELECT pg_switch_wal()")
        assert until(lambda: self.archived("db1") >= before + len(SEGMENTS), seconds=60)
        self.sql("db1", "CHECKPOINT")
        assert first not in primary.root(f"ls {self.data('db1')}/pg_wal")

    def info(self, name: str = "db1") -> dict[str, Any]:
        said = self.by_dba(name, "--stanza=orders info --output=json")
        return dict(json.loads(said)[0])

    def by_dba(self, name: str, command: str) -> str:
        """pgBackRest as somebody runs it on a server, by its account."""
        place = (
            f"--pg1-path={self.data(name)} --pg1-socket-path=/run/tde-backup-{name} --pg1-port=5432 --pg1-user=postgres"
        )
        own = "" if " info" in command or "stanza-delete" in command else place
        return self.machines[name].root(f"runuser -u postgres -- pgbackrest {own} {command}")


@pytest.fixture(scope="module")
def machines(laboratory: Lab) -> list[Booted]:
    made = laboratory.boot("backup1", "backup2")
    for machine in made:
        machine.root('chown postgres: "$1"; printf %s "$2" >/etc/pgbackrest.conf', SHARED, CONFIGURATION)
    return made


@pytest.fixture
def cluster(laboratory: Lab, contained_bao: Contained, machines: list[Booted]) -> Iterator[Cluster]:
    if not shutil.which("pulumi") or not (ROOT / ".venv").exists():
        pytest.skip("THE CLUSTER WITH AN ARCHIVE WAS NOT MADE: no pulumi on PATH; `make test` brings one")
    workspace = Workspace(Path(tempfile.mkdtemp(prefix="tde-")), "backup", contained_bao.environment)
    workspace.init()
    with laboratory.joined(OwnVault.name):
        yield Cluster(workspace, laboratory, contained_bao, machines)
    workspace.close()


def test_a_cluster_archives_whoever_is_the_primary_and_backups_outlive_it(cluster: Cluster) -> None:
    workspace, two = cluster.workspace, cluster.machines["db2"]
    before = [machine.found() for machine in cluster.machines.values()]
    cluster.write()
    two.root("chmod 600 /etc/pgbackrest.conf; chown root /etc/pgbackrest.conf")
    refused = workspace.preview()
    assert "on db2, `pgbackrest info` failed as account postgres: unable to open file" in refused.text
    two.root("chown postgres /etc/pgbackrest.conf; mv /usr/bin/pgbackrest /usr/bin/pgbackrest.away")
    try:
        assert "there is no pgbackrest on db2: install it there" in workspace.preview().text
    finally:
        two.root("mv /usr/bin/pgbackrest.away /usr/bin/pgbackrest")
    workspace.up_well()
    workspace.unchanged()
    assert cluster.archived("db1") > 0
    [[command]] = cluster.sql("db1", "SHOW archive_command")
    assert command.startswith(f"{DOUBLE}/pg_tde_archive_decrypt %f %p ")
    assert cluster.info("db2")["status"]["message"] == "no valid backups"
    cluster.by_dba("db1", "--stanza=orders backup")

    restored(cluster)

    # Somebody has removed the stanza: WAL waits, and the next `up` makes it again.
    cluster.machines["db1"].root(f"rm -r {SHARED}/repository/archive/orders {SHARED}/repository/backup/orders")
    assert workspace.preview().plan == {"Stanza orders": "create"}
    workspace.up_well()
    workspace.unchanged()
    cluster.by_dba("db1", "--stanza=orders backup")

    fed_from_the_archive(cluster)
    archived_by_the_next_primary(cluster)

    # And back: without an archive, and the stack without a trace but for its backups.
    cluster.write(primary="db2", archive=None)
    preview = workspace.preview()
    assert "server db2 will be restarted: archive_mode can only change at start" in preview.text
    workspace.up_well()
    workspace.unchanged()
    assert [cluster.sql(name, "SHOW archive_mode") for name in NAMES] == [[("off",)]] * 2
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert [machine.found() for machine in cluster.machines.values()] == before
    found = cluster.info()
    assert len(found["backup"]) == 1

    # Another cluster does not write into its stanza.
    cluster.write()
    refused = workspace.up()
    assert refused.code != 0
    assert f"stanza orders is of another cluster (system identifier {found['db'][0]['system-id']})" in refused.text
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text


def restored(cluster: Cluster) -> None:
    """A drill restores on the standby, reads all, reaches nobody, and leaves its note alone; so does one after a drill that was
    killed."""
    workspace, standby = cluster.workspace, cluster.machines["db2"]
    above = cluster.data("db2").parent
    cluster.sql("db1", "CREATE TABLE public.kept USING tde_heap AS SELECT generate_series(1, 1000) AS n")
    cluster.sql("db1", "SELECT pg_switch_wal()")
    killed = drill(workspace)
    began = until(lambda: f".data.{NAME}" in standby.root(f"ls -A {above}"), seconds=60)
    killed.kill()
    said, _ = killed.communicate(timeout=60)
    assert began, said
    assert until(lambda: NAME not in standby.root("ps -eo args"), seconds=60)

    before, archived = standby.root(f"ls -A {above}"), cluster.archived("db1")
    done = drill(workspace)
    said, told = done.communicate(timeout=300)
    assert done.returncode == 0, said + told
    [found] = re.findall(r"read (\d+) tables in (\d+) databases \((\d+) of them encrypted\), (\d+) rows", said)
    assert [int(one) for one in found] == [1, 1, 1, 1000]
    assert set(standby.root(f"ls -A {above}").splitlines()) == {
        *(name for name in before.splitlines() if NAME not in name),
        f"backup.{NAME}.json",
    }
    assert NAME not in standby.root("ps -eo args")
    assert cluster.archived("db1") == archived
    assert ".history" not in cluster.machines["db1"].root(f"ls {SHARED}/repository/archive/orders/18-1")
    workspace.unchanged()
    status = run(workspace, "status", "--json")
    said, _ = status.communicate(timeout=60)
    stanza = json.loads(said)["stanza"]
    assert (stanza["state"], stanza["last"]["type"], stanza["backups"]) == ("there", "full", 1)
    assert (stanza["drill"]["server"], stanza["drill"]["rows"], stanza["drill"]["problem"]) == ("db2", 1000, "")


def drill(workspace: Workspace) -> "subprocess.Popen[str]":
    return run(workspace, "restore_drill")


def run(workspace: Workspace, module: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"tde_replication.{module}", "--stack", workspace.stack, *arguments],
        cwd=workspace.directory,
        env=workspace.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fed_from_the_archive(cluster: Cluster) -> None:
    """A standby that was away for too long finds in the archive what the primary has no more: it is not cloned again."""
    workspace = cluster.workspace
    cluster.falls_behind("db2")
    made = cluster.host("db2").read(cluster.data("db2") / MARKER)
    assert workspace.preview().plan == {
        "ReplicationSlot tde_db2": "create",
        "Server db2": "update",
        "ReplicationCheck db2": "update",
    }
    workspace.up_well()
    workspace.unchanged()
    assert cluster.host("db2").read(cluster.data("db2") / MARKER) == made
    assert cluster.sql("db2", "SELECT count(*) FROM public.written") == [(len(SEGMENTS),)]


def archived_by_the_next_primary(cluster: Cluster) -> None:
    """And not by the former one."""
    workspace = cluster.workspace
    cluster.write(primary="db2")
    plan = workspace.preview().plan
    assert "Stanza orders" not in plan
    workspace.up_well()
    workspace.unchanged()
    former, own = cluster.archived("db1"), cluster.archived("db2")
    cluster.sql("db2", "SELECT pg_switch_wal()")
    assert until(lambda: cluster.archived("db2") > own, seconds=30)
    assert cluster.archived("db1") == former
    cluster.by_dba("db2", "--stanza=orders check")
