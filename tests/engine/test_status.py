"""The status of a real cluster: well, degraded, broken, and what cannot be told; beside a running `up`, too."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.engine.cluster import Cluster, base_directory, discard
from tests.engine.status import BROKEN, DEGRADED, UNKNOWN, WELL, expect, report, status
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A primary and a standby, with a table that is encrypted and one that is not."""
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("live"), "live", openbao.environment)
    made = Cluster(workspace, base, 1, openbao, binaries=encrypted_binaries)
    workspace.init()
    workspace.up_well()
    made.sql(
        "db1", "CREATE TABLE closed USING tde_heap AS SELECT generate_series(1, 9999) AS a; CREATE TABLE open (a int)"
    )
    yield made
    openbao.start()
    discard(made)


def is_well(cluster: Cluster) -> bool:
    return status(cluster).code == WELL


@contextmanager
def stopped(cluster: Cluster, name: str) -> Iterator[None]:
    cluster.stop(name)
    try:
        yield
    finally:
        cluster.start(name)
        eventually(lambda: is_well(cluster))


def test_a_healthy_cluster_is_shown_whole_and_without_a_secret(cluster: Cluster) -> None:
    eventually(lambda: is_well(cluster))
    text = expect(
        cluster,
        WELL,
        "primary db1",
        "NOT ENCRYPTED: a stand-in for pg_tde",
        "not protected: all tables and WAL, system catalogs",
        "next due: Vault tokens of db1, db2 in 3",
        "└─ db2   streaming from db1, asynchronous",
        "slot tde_db2 on db1: reserved",
        "server and default key live-principal-key of vault (vault-v2, https://127.0.0.1:",
        ": opens",
        "Vault token: 3",
    )
    secrets = [cluster.file(name, "vault-token").read_text().strip() for name in cluster.names]
    secrets.append(cluster.file("db2", "pgpass").read_text().splitlines()[0].rpartition(":")[2])
    secrets.append(cluster.bao.token)
    shown = text + status(cluster, "--json").text + status(cluster, "--prometheus").text + report(cluster, "--drift")
    assert not [secret for secret in secrets if secret in shown]


def test_the_page_shows_what_was_changed_by_hand(cluster: Cluster) -> None:
    assert "None: everything was found as it was left." in report(cluster, "--drift")
    cluster.sql("db1", "ALTER ROLE replicator CONNECTION LIMIT 7")
    try:
        page = report(cluster, "--drift")
        assert "Somebody has changed this without the stack file." in page
        assert "it may connect 7 times at once" in page
        assert "asks that too" in report(cluster)
    finally:
        cluster.sql("db1", "ALTER ROLE replicator CONNECTION LIMIT -1")


def test_json_has_all_of_it(cluster: Cluster) -> None:
    cluster.sql("db1", "CHECKPOINT")
    found = json.loads(status(cluster, "--json").text)
    assert (found["format"], found["status"], found["code"], found["findings"]) == (1, "well", WELL, [])
    db1, db2 = found["servers"]
    assert (db1["role"], db2["role"], db2["upstream"]) == ("primary", "standby", "db1")
    assert [(key["scope"], key["problem"]) for key in db2["encryption"]["keys"]] == [("server", ""), ("default", "")]
    assert 700 * 3600 < db1["token"]["secondsLeft"] <= 768 * 3600
    # The stand-in encrypts nothing.
    assert db1["onDisk"]["inClear"] == ["postgres.public.closed"]
    [database] = found["databases"]
    assert database["encryptedBytes"] > 300_000
    assert database["clearTables"] == [{"name": "public.open", "bytes": 0}]
    parts = ("encryptedBytes", "clearBytes", "catalogBytes")
    assert sum(database[part] for part in parts) <= database["totalBytes"]
    [(size,)] = cluster.sql("db1", "SELECT pg_database_size('postgres')")
    assert abs(database["totalBytes"] - size) < 2**20


def test_it_takes_less_time_than_a_refresh(cluster: Cluster) -> None:
    began = time.monotonic()
    assert status(cluster).code == WELL
    took = time.monotonic() - began
    began = time.monotonic()
    assert cluster.workspace.run("refresh", "--yes", "--skip-preview").code == 0
    refresh = time.monotonic() - began
    print(f"status {took:.1f} s, refresh {refresh:.1f} s")  # noqa: T201 - for docs/performance.md
    assert took < refresh


def test_a_table_that_somebody_has_locked_keeps_nobody_waiting(cluster: Cluster) -> None:
    with psycopg.connect(host=str(cluster.sockets("db1")), port=cluster.ports["db1"], user="postgres") as other:
        other.execute("LOCK TABLE closed IN ACCESS EXCLUSIVE MODE")
        found = json.loads(status(cluster, "--json").text)
    assert found["code"] == WELL
    assert found["databases"][0]["unknownBytes"] > 300_000


def test_a_standby_that_is_down(cluster: Cluster) -> None:
    with stopped(cluster, "db2"):
        expect(
            cluster,
            DEGRADED,
            "db2   DOWN",
            "DEGRADED  db2: down: no server runs on",
            "slot tde_db2 on db1",
            "holds back",
        )


def test_replay_that_is_paused(cluster: Cluster) -> None:
    cluster.sql("db2", "SELECT pg_wal_replay_pause()")
    expect(cluster, DEGRADED, "REPLAY PAUSED", "DEGRADED  db2: replay is paused")
    cluster.sql("db2", "SELECT pg_wal_replay_resume()")
    eventually(lambda: is_well(cluster))


def test_the_primary_is_down(cluster: Cluster) -> None:
    with stopped(cluster, "db1"):
        expect(
            cluster,
            BROKEN,
            "NO PRIMARY",
            "db1   DOWN",
            "BROKEN  live: no server takes writes",
            "db2   standby, NOT STREAMING",
        )


def test_a_primary_that_does_not_answer_is_not_called_down(cluster: Cluster) -> None:
    """Its postmaster is stopped by a signal: whether it takes writes cannot be told."""
    os.kill(cluster.pid("db1"), signal.SIGSTOP)
    try:
        text = expect(
            cluster,
            UNKNOWN,
            "db1   CANNOT BE ASKED",
            "CANNOT TELL  live: db1 cannot be asked, and no other server takes writes",
        )
        assert "BROKEN" not in text
    finally:
        os.kill(cluster.pid("db1"), signal.SIGCONT)
    eventually(lambda: is_well(cluster))


def test_a_sealed_vault(cluster: Cluster) -> None:
    """Servers go on with what they have opened; they would not start again."""
    cluster.bao.seal()
    try:
        expect(
            cluster,
            DEGRADED,
            "server and default key live-principal-key",
            "same keys: DOES NOT OPEN",
            "DEGRADED  db1: it cannot open its server key live-principal-key now",
            "CANNOT TELL  db2: the time left of its Vault token is not known",
            "is sealed",
        )
    finally:
        cluster.bao.unseal()
    eventually(lambda: is_well(cluster))


def test_no_token_goes_where_only_the_stack_file_says(cluster: Cluster) -> None:
    environment = cluster.workspace.environment
    kept = environment.pop("VAULT_TOKEN")
    try:
        expect(cluster, UNKNOWN, "Vault token: not known", "vault:token: missing; set VAULT_TOKEN")
    finally:
        environment["VAULT_TOKEN"] = kept


def test_a_token_that_the_stack_file_has_encrypted(cluster: Cluster) -> None:
    """Then Pulumi decrypts it; and with nothing to decrypt by, the rest of the state is told all the same."""
    workspace = cluster.workspace
    before, passphrase = workspace.cluster, workspace.environment["PULUMI_CONFIG_PASSPHRASE"]
    token = workspace.environment.pop("VAULT_TOKEN")
    assert workspace.run("config", "set", "--secret", "vault:token", token).code == 0
    try:
        assert token not in expect(cluster, WELL, "Vault token: 3")
        workspace.environment["PULUMI_CONFIG_PASSPHRASE"] = "another"
        expect(
            cluster,
            UNKNOWN,
            "└─ db2   streaming from db1",
            "the stack file has encrypted values, and `pulumi config` cannot",
        )
    finally:
        workspace.environment |= {"VAULT_TOKEN": token, "PULUMI_CONFIG_PASSPHRASE": passphrase}
        workspace.write(before)


def test_it_is_shown_again_when_something_changes_until_ctrl_c(cluster: Cluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tde_replication.status", "--stack", "live", "--watch"],
        cwd=cluster.workspace.directory,
        env=cluster.workspace.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout
        next(line for line in watching.stdout if "WELL" in line)
        cluster.sql("db2", "SELECT pg_wal_replay_pause()")
        next(line for line in watching.stdout if "DEGRADED" in line)
        cluster.sql("db2", "SELECT pg_wal_replay_resume()")
        next(line for line in watching.stdout if "WELL" in line)
        watching.send_signal(signal.SIGINT)
        assert watching.wait() == 0


def test_beside_a_running_up(cluster: Cluster) -> None:
    """It asks for no lock, and does not disturb it."""
    workspace, state = cluster.workspace, cluster.workspace.directory / "state"
    before = workspace.cluster
    workspace.write({**before, "replication": {"passwordVersion": 2}})
    cluster.sql("db1", "CREATE DATABASE more")
    codes = []
    with workspace.start("up", "--yes", "--skip-preview") as up:
        eventually(lambda: any(state.rglob("locks/**/*.json")))
        while any(state.rglob("locks/**/*.json")):
            codes.append(status(cluster).code)
        text = up.communicate()[0]
    assert up.returncode == 0, text
    assert codes[:-1], "no look was over before the `up` was"
    assert set(codes) <= {WELL, DEGRADED}
    cluster.sql("db1", "DROP DATABASE more")
    eventually(lambda: is_well(cluster))


def test_a_slot_that_is_lost(cluster: Cluster) -> None:
    """And one that is gone; `up` repairs both."""
    cluster.stop("db2")
    cluster.sql("db1", "SELECT pg_drop_replication_slot('tde_db2')")
    expect(cluster, DEGRADED, "slot tde_db2 is on no server")
    cluster.sql("db1", "SELECT pg_create_physical_replication_slot('tde_db2', true)")
    cluster.sql("db1", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; SELECT pg_reload_conf()")
    for _ in range(3):
        cluster.sql(
            "db1", "SELECT pg_logical_emit_message(false, '', repeat('x', 1000)); SELECT pg_switch_wal(); CHECKPOINT"
        )
    expect(cluster, DEGRADED, "slot tde_db2 on db1 is lost (wal_removed): its WAL is gone")
    cluster.workspace.up_well()
    eventually(lambda: is_well(cluster))


def test_roles_are_found_and_not_assumed(cluster: Cluster) -> None:
    """A standby promoted by hand: beside the primary, and alone. The last test: nothing puts this right but a new cluster."""
    cluster.sql("db2", "SELECT pg_promote()")
    expect(cluster, BROKEN, "2 PRIMARIES: db1 and db2", "BROKEN  live: db1 and db2 both take writes", "db2   primary")
    cluster.stop("db1")
    expect(
        cluster,
        DEGRADED,
        "primary db2",
        "db1   DOWN",
        "DEGRADED  db2: it takes writes, and the stack file names db1 as the primary",
    )
    metrics = status(cluster, "--prometheus").text
    assert 'tde_server_takes_writes{stack="live",server="db2"} 1' in metrics
    assert 'pg_up{stack="live",server="db1"} 0' in metrics


def test_a_stack_file_that_is_wrong_is_an_answer_for_programs_too(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: tde-replication\nstackConfigDir: stacks\n")
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.wrong.yaml").write_text("config: {'tde-replication:cluster': {encryption: maybe}}")

    def asked(stack: str, *arguments: str) -> Any:
        command = [sys.executable, "-m", "tde_replication.status", "--stack", stack, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = asked("wrong", "--json")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (UNKNOWN, UNKNOWN)
    assert "cluster.encryption" in done.stderr
    assert 'tde_status{stack="wrong"} 3' in asked("wrong", "--prometheus").stdout
    assert "there is no stacks/Pulumi.none.yaml" in asked("none").stderr
