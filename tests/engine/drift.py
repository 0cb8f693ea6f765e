"""The drift table: what somebody did behind our back, what `preview` plans, what `up` does, and what it costs.

docs/drift.md is made of it: `python -m tests.engine.drift_page > docs/drift.md`.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest

from tests.engine import drift_actions
from tests.engine.cluster import Cluster
from tests.engine.workspace import eventually

ROLE, RULE = "ReplicationRole replicator", "HbaRule replicator from 127.0.0.1/32"


@dataclass(frozen=True)
class Row:
    """One case. `plan` is what the preview must hold, no more and no less; `says` are words that it must show."""

    resource: str
    what: str
    act: Callable[[Cluster], object]
    plan: dict[str, str]
    says: tuple[str, ...] = ()
    repair: str = "in place"
    here: bool = False
    """Whether it is done to a process or a file of this machine's (a server in a container is stopped in another way), or is
    about a setting that the stack file of test_drift.py alone has."""
    by_root: bool = False
    """Whether only root can do it."""
    batch: str = ""
    """Rows of one batch share a preview and an `up`; a row without one stands alone."""
    check: Callable[[Cluster], object] = field(default=lambda _: None)

    def planned(self, cluster: Cluster) -> dict[str, str]:
        """`plan` for the names and addresses of `cluster`."""
        called = _called(cluster)
        return {called(name.replace("127.0.0.1/32", cluster.clients)): step for name, step in self.plan.items()}

    def unsaid(self, cluster: Cluster, preview: str) -> list[str]:
        """The words that `preview` lacks."""
        return [words for words in map(_called(cluster), self.says) if words not in preview]

    def __str__(self) -> str:
        return f"{self.resource}: {self.what}"


def batches(rows: Sequence[Row]) -> list[list[Row]]:
    """`rows` by what shares a preview."""
    return [list(shared) for _, shared in groupby(rows, key=lambda row: row.batch or str(row))]


def batches_here(rows: Sequence[Row]) -> list[Any]:
    """The same as parameters of a test; what this account cannot do is skipped, each row by itself."""
    left = [row for row in rows if row.by_root and os.geteuid()]
    skipped = pytest.mark.skip("only root can do this: it was NOT tested")
    return [*batches([row for row in rows if row not in left]), *(pytest.param([row], marks=skipped) for row in left)]


def shown_and_repaired(cluster: Cluster, rows: Sequence[Row]) -> None:
    """Do all of `rows`: the preview plans and says just that, and `up` does it.

    That nothing is left then, the next preview proves, whose whole plan is compared: that of the next rows, or the caller's.
    """
    for row in rows:
        row.act(cluster)
        row.check(cluster)
    preview = cluster.workspace.preview()
    assert preview.code == 0, preview.errors
    plan = {resource: step for row in rows for resource, step in row.planned(cluster).items()}
    assert preview.plan == plan, preview.changes
    assert [words for row in rows for words in row.unsaid(cluster, preview.words)] == [], preview.changes
    before = started(cluster)
    cluster.workspace.up_well()
    after = started(cluster)
    told = set(re.findall(r"server (\S+) will be restarted", preview.text))
    made = {name for name in before if plan.get(f"Server {name}") in {"create", "replace"}}
    assert {name for name in before if before[name] != after[name]} - made == told - made


def started(cluster: Cluster) -> dict[str, Any]:
    """When each server that answers was started."""
    return {
        name: cluster.sql(name, "SELECT pg_postmaster_start_time()") for name in cluster.names if cluster.answers(name)
    }


def _called(cluster: Cluster) -> Callable[[str], str]:
    """Names that begin with the stack's, which is "drift" in the table."""
    return lambda text: text.replace("drift-", f"{cluster.workspace.stack}-")


def _recloned(name: str) -> dict[str, str]:
    return {f"DataDirectory {name}": "replace", f"Server {name}": "replace", f"ReplicationCheck {name}": "replace"}


ROWS = [
    Row(
        "HbaRule",
        "edited to let everybody in",
        drift_actions.hba(
            lambda text: text.replace(
                drift_actions.ours(text), re.sub(r"\S+(\s+scram)", r"0.0.0.0/0\1", drift_actions.ours(text), count=1)
            )
        ),
        {RULE: "update"},
        ("position", ' was edited" => "before other replication rules"'),
        repair="in place, reload",
        check=lambda cluster: eventually(lambda: cluster.sql("db1", drift_actions.OPEN) == [(1,)]),
    ),
    Row(
        "ReplicationRole",
        "lost LOGIN",
        drift_actions.sql("ALTER ROLE replicator NOLOGIN"),
        {ROLE: "update"},
        ("attributes", '[0]: "REPLICATION" => "LOGIN"'),
        batch="1",
    ),
    Row(
        "TableEncryption",
        "a table that matches a pattern was made in clear",
        drift_actions.sql(
            "SET pg_tde.enforce_encryption = off; CREATE SCHEMA IF NOT EXISTS shop; "
            "CREATE TABLE shop.plain USING heap AS SELECT 1 AS n"
        ),
        {"TableEncryption tables of postgres": "update", "DatabaseEncryption encryption in postgres": "update"},
        ('[0]: "shop.plain"',),
        repair="in place: it is rewritten, and locked for as long",
        batch="1",
        here=True,
    ),
    Row(
        "HbaRule",
        "line removed",
        drift_actions.hba(drift_actions.without_ours),
        {RULE: "create"},
        repair="in place, reload",
        batch="1",
    ),
    Row(
        "Server (primary)",
        "parameter changed by ALTER SYSTEM",
        drift_actions.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'; SELECT pg_reload_conf()"),
        {"Server db1": "update"},
        ('max_slot_wal_keep_size : "1024MB" => "4GB"',),
        repair="in place, reload",
        batch="1",
    ),
    Row(
        "Server (standby)",
        "replay paused",
        drift_actions.sql("SELECT pg_wal_replay_pause()", "db2"),
        {"Server db2": "update"},
        ('replay : "paused" => "running"',),
        batch="1",
    ),
    Row(
        "HostFile (Vault token)",
        "readable by others",
        drift_actions.let_others_read,
        {"HostFile db2-vault-token": "update"},
        ('"0644" => "0600"',),
        batch="1",
    ),
    Row(
        "HostFile (passfile)",
        "removed",
        drift_actions.remove("db3", "pgpass"),
        {"HostFile db3-pgpass": "create"},
        batch="1",
    ),
    Row(
        "DatabaseEncryption",
        "taken from the database, in which other tables may be made again",
        drift_actions.sql("ALTER DATABASE postgres RESET ALL"),
        {"DatabaseEncryption encryption in postgres": "update"},
        ("settings", 'pg_tde.enforce_encryption : "on"'),
        batch="1",
    ),
    Row(
        "ReplicationRole",
        "password changed",
        drift_actions.sql("ALTER ROLE replicator PASSWORD 'changed by hand'"),
        {ROLE: "update"},
        ("passwordMatches : false => true",),
        batch="2",
    ),
    Row(
        "HbaRule",
        "method edited",
        drift_actions.hba(
            lambda text: text.replace(
                drift_actions.ours(text), drift_actions.ours(text).replace("scram-sha-256", "trust")
            )
        ),
        {RULE: "update"},
        ('"trust" => "scram-sha-256"',),
        repair="in place, reload",
        batch="2",
    ),
    Row(
        "Server (standby)",
        "killed",
        lambda cluster: cluster.kill("db2"),
        {"Server db2": "update", "ReplicationCheck db2": "update"},
        ("running : false => true",),
        repair="start",
        batch="2",
        here=True,
    ),
    Row(
        "HostFile (Vault token)",
        "other content",
        drift_actions.write("db1", "vault-token", b"hvs.somebody-else"),
        {"HostFile db1-vault-token": "update", "PrincipalKey drift-principal-key": "update"},
        ("contentMatches: false => true", "failed to retrieve principal key"),
        batch="2",
    ),
    Row(
        "ReplicationRole",
        "lost REPLICATION",
        drift_actions.sql("ALTER ROLE replicator NOREPLICATION"),
        {ROLE: "update"},
        ("attributes",),
        batch="3",
    ),
    Row(
        "HbaRule",
        "moved below another replication rule",
        drift_actions.hba(
            lambda text: (
                drift_actions.without_ours(text)
                + "host replication all 127.0.0.1/32 reject\n"
                + drift_actions.ours(text)
            )
        ),
        {RULE: "update"},
        ("after line", "(host replication all 127.0.0.1/32 scram-sha-256)", "before other replication rules"),
        repair="in place, reload",
        batch="3",
    ),
    Row(
        "Server (standby)",
        "stopped",
        lambda cluster: cluster.stop("db3"),
        {"Server db3": "update", "ReplicationCheck db3": "update"},
        ("running : false => true",),
        repair="start",
        batch="3",
        here=True,
    ),
    Row(
        "KeyProvider",
        "token path changed",
        lambda cluster: drift_actions.provider(cluster, token=str(cluster.beside("db1", "vault-token"))),
        {"KeyProvider vault": "update"},
        ("tokenPath",),
        batch="3",
    ),
    Row(
        "ReplicationRole",
        "VALID UNTIL in the past",
        drift_actions.sql("ALTER ROLE replicator VALID UNTIL '2020-01-01'"),
        {ROLE: "update"},
        ('"2020-01-01 00:00:00+00" => "infinity"',),
        batch="4",
    ),
    Row(
        "HbaRule",
        "a reject rule put above it",
        drift_actions.hba(lambda text: "host replication replicator 127.0.0.1/32 reject\n" + text),
        {RULE: "update"},
        repair="in place, reload",
        batch="4",
    ),
    Row(
        "Server (standby)",
        "standby.signal removed",
        lambda cluster: cluster.host("db2").remove(cluster.place("db2") / "standby.signal"),
        {"Server db2": "update"},
        ('recovery : "none" => "standby"',),
        batch="4",
    ),
    Row(
        "Server (primary)",
        "a changed parameter waits for a restart",
        drift_actions.sql("ALTER SYSTEM SET cluster_name = 'other'; SELECT pg_reload_conf()"),
        {"Server db1": "update"},
        ("pendingRestart", "cluster_name"),
        repair="in place, reload",
        batch="4",
    ),
    Row(
        "ReplicationRole",
        "CONNECTION LIMIT 0",
        drift_actions.sql("ALTER ROLE replicator CONNECTION LIMIT 0"),
        {ROLE: "update"},
        ("connectionLimit : 0 => -1",),
        batch="5",
    ),
    Row(
        "HbaRule",
        "present twice",
        drift_actions.hba(lambda text: text + drift_actions.ours(text)),
        {RULE: "update"},
        ("lines", "2 => 1"),
        repair="in place, reload",
        batch="5",
    ),
    Row(
        "Server (standby)",
        "primary_conninfo points elsewhere",
        drift_actions.auto_conf("db2", "primary_conninfo = 'host=192.0.2.1 user=nobody'"),
        {"Server db2": "update", "ReplicationCheck db2": "update"},
        ("primary_conninfo",),
        repair="in place, reload",
        batch="5",
        check=lambda cluster: eventually(lambda: "tde_db2" not in cluster.streaming()),
    ),
    Row(
        "HostFile (Vault token)",
        "removed",
        drift_actions.remove("db3", "vault-token"),
        {"HostFile db3-vault-token": "create"},
        batch="5",
    ),
    Row(
        "ReplicationRole",
        "made a superuser",
        drift_actions.sql("ALTER ROLE replicator SUPERUSER"),
        {ROLE: "update"},
        ("SUPERUSER",),
        batch="6",
    ),
    Row(
        "HbaRule",
        "file changed and not loaded",
        drift_actions.hba(lambda text: text + "# a comment, saved and not loaded\n", reload=False),
        {RULE: "update"},
        ("loaded : false => true",),
        repair="reload",
        batch="6",
    ),
    Row(
        "Server (standby)",
        "pg_tde taken from shared_preload_libraries",
        drift_actions.auto_conf("db3", "shared_preload_libraries = ''"),
        {"Server db3": "update"},
        ("pendingRestart",),
        repair="in place, reload",
        batch="6",
    ),
    Row(
        "Server (standby)",
        "another pg_tde.cipher set by hand",
        drift_actions.sql("ALTER SYSTEM SET pg_tde.cipher = aes_256; SELECT pg_reload_conf()", "db2"),
        {"Server db2": "update"},
        ('pg_tde.cipher : "aes_256" => "aes_128"',),
        repair="in place, reload",
        batch="6",
    ),
    Row(
        "HostFile (CA)",
        "removed, on the primary",
        drift_actions.remove("db1", "vault-ca.pem"),
        {"HostFile db1-vault-ca": "create", "PrincipalKey drift-principal-key": "update"},
        ("failed to retrieve principal key",),
        batch="6",
    ),
    Row(
        "ReplicationRole",
        "dropped",
        drift_actions.sql("DROP ROLE replicator"),
        {ROLE: "create"},
        batch="7",
    ),
    Row(
        "ReplicationSlot",
        "dropped, with its standby down",
        lambda cluster: drift_actions.drop_slot(cluster, "db3"),
        {"ReplicationSlot tde_db3": "create", "Server db3": "update", "ReplicationCheck db3": "update"},
        repair="in place: the WAL is still there",
        batch="7",
        here=True,
    ),
    Row(
        "HostFile (Vault token)",
        "removed, on the primary",
        drift_actions.remove("db1", "vault-token"),
        {"HostFile db1-vault-token": "create"},
        ("No such file or directory (SQLSTATE 58P01)", "shown as last known"),
        batch="7",
    ),
    Row(
        "SecretContent (Vault)",
        "another value",
        lambda cluster: cluster.bao.client().secrets.kv.v2.create_or_update_secret(
            "replication/replicator", {"password": "by hand"}, mount_point=f"tde-{cluster.workspace.stack}"
        ),
        {"SecretContent drift-replication-secret": "update"},
        batch="7",
    ),
    Row(
        "Policy (Vault)",
        "widened",
        drift_actions.policy('path "*" { capabilities = ["create", "read", "update", "delete", "list"] }'),
        {"Policy db2-policy": "update"},
        batch="8",
    ),
    Row(
        "Token (Vault)",
        "revoked",
        drift_actions.revoke("db2"),
        {"Token db2-token": "create", "HostFile db2-vault-token": "update"},
        repair="a new token, and its file",
        batch="8",
    ),
    Row(
        "SecretV2 (Vault)",
        "removed",
        lambda cluster: cluster.bao.client().secrets.kv.v2.delete_metadata_and_all_versions(
            "replication/replicator", mount_point=f"tde-{cluster.workspace.stack}"
        ),
        {"SecretV2 drift-replication-secret": "create", "SecretContent drift-replication-secret": "create"},
        batch="8",
    ),
    Row(
        "SecretContent (Vault)",
        "deleted, as `vault kv delete` does",
        lambda cluster: cluster.bao.client().secrets.kv.v2.delete_latest_version_of_secret(
            "replication/replicator", mount_point=f"tde-{cluster.workspace.stack}"
        ),
        {"SecretContent drift-replication-secret": "update"},
        repair="the deleted version comes back",
        batch="9",
    ),
    Row(
        "Policy (Vault)",
        "removed",
        lambda cluster: cluster.bao.client().sys.delete_policy(f"tde-{cluster.workspace.stack}__db2"),
        {"Policy db2-policy": "update"},
        batch="9",
    ),
    Row(
        "ReplicationRole",
        "member of another role",
        drift_actions.sql("GRANT pg_read_all_data TO replicator"),
        {ROLE: "update"},
        ("pg_read_all_data",),
        batch="9",
    ),
    Row(
        "HostFile (Vault token)",
        "of another owner",
        drift_actions.give_to_root("db3"),
        {"HostFile db3-vault-token": "update"},
        ('"root" => "the server\'s account"',),
        batch="9",
        here=True,
        by_root=True,
    ),
    Row(
        "HostFile (Vault token)",
        "of another owner, on the primary",
        drift_actions.give_to_root("db1"),
        {"HostFile db1-vault-token": "update"},
        ("Permission denied (SQLSTATE 42501)", "shown as last known"),
        batch="9",
        here=True,
        by_root=True,
    ),
    Row(
        "Extension",
        "dropped",
        drift_actions.sql(
            "DROP TABLE IF EXISTS shop.plain; ALTER TABLE IF EXISTS public.t SET ACCESS METHOD heap; DROP EXTENSION pg_tde"
        ),
        {"Extension pg_tde in postgres": "create"},
        ("has no extension pg_tde", "shown as last known"),
        repair="in place: provider and keys outlive it",
        batch="10",
    ),
    Row(
        "Server (primary)",
        "parameter changed by ALTER SYSTEM and not loaded",
        drift_actions.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'"),
        {"Server db1": "update"},
        ("pendingReload", '[0]: "max_slot_wal_keep_size"'),
        repair="in place, reload",
        batch="10",
    ),
    Row(
        "Server (standby)",
        "parameter edited in postgresql.auto.conf and not loaded",
        lambda cluster: cluster.edit(
            "db3", "postgresql.auto.conf", lambda text: text + "primary_slot_name = 'another'\n"
        ),
        {"Server db3": "update"},
        ("pendingReload", '[0]: "primary_slot_name"'),
        repair="in place, reload",
        batch="10",
    ),
    Row(
        "Server (standby)",
        "started with a parameter on its command line",
        drift_actions.with_option("db2", "-c wal_retrieve_retry_interval=5s"),
        {"Server db2": "update"},
        (
            'wal_retrieve_retry_interval: "5000ms" => "1s"',
            "server db2 will be restarted: wal_retrieve_retry_interval",
        ),
        repair="restart",
        batch="10",
        here=True,
    ),
    Row(
        "Server (primary)",
        "started without pg_tde",
        drift_actions.without_pg_tde("db1"),
        {"Server db1": "update"},
        (
            'shared_preload_libraries : "pg_tde"',
            "server db1 will be restarted: shared_preload_libraries",
            "pg_tde can only be loaded at server startup",
            "shown as last known",
        ),
        repair="restart",
        batch="11",
        here=True,
    ),
    Row(
        "DataDirectory",
        "the standby was started without pg_tde",
        drift_actions.without_pg_tde("db3"),
        _recloned("db3"),
        (
            '"it runs without pg_tde, and replays in clear what is encrypted" => "the primary"',
            "db3: a new base backup of db1, ",
            "; the old data is removed",
        ),
        repair="a new base backup of this standby",
        batch="11",
        here=True,
    ),
    Row(
        "Server (primary)",
        "a parameter that can only change at start, changed and restarted",
        drift_actions.set_and_restart("cluster_name", "other"),
        {"Server db1": "update"},
        ('cluster_name : "other" => "db1"', "server db1 will be restarted: cluster_name"),
        repair="restart",
        batch="12",
        here=True,
    ),
    Row(
        "WalEncryption",
        "switched on by hand, and restarted",
        drift_actions.set_and_restart("pg_tde.wal_encrypt", "on"),
        {"WalEncryption WAL of db1": "update"},
        ('walEncrypt : "on" => "off"', "server db1 will be restarted: pg_tde.wal_encrypt"),
        repair="restart",
        batch="12",
        here=True,
    ),
    Row(
        "HostFile (CA)",
        "other content",
        drift_actions.write("db2", "vault-ca.pem", b"no certificate", 0o644),
        {"HostFile db2-vault-ca": "update"},
        ("contentMatches: false => true",),
        batch="12",
    ),
    Row(
        "HostFile (passfile)",
        "other content",
        drift_actions.write("db3", "pgpass", b"*:*:*:replicator:changed by hand"),
        {"HostFile db3-pgpass": "update"},
        ("contentMatches: false => true",),
        batch="12",
    ),
    Row(
        "ReplicationRole",
        "dropped, and made by somebody else",
        drift_actions.sql("DROP ROLE replicator; CREATE ROLE replicator LOGIN CREATEDB"),
        {ROLE: "update"},
        ("passwordMatches : false => true", "CREATEDB"),
        batch="12",
    ),
    Row(
        "KeyBinding",
        "another default key set by hand",
        drift_actions.set_key("default", "by-hand-too"),
        {"KeyBinding default key": "update", "KeyBinding server key": "update"},
        ('"by-hand-too" => "drift-principal-key"',),
        repair="in place: a rotation back (pg_tde sets both, where they were the same)",
        batch="13",
    ),
    Row(
        "WalEncryption",
        "switched on by hand, and waiting for a restart",
        drift_actions.sql("ALTER SYSTEM SET pg_tde.wal_encrypt = on; SELECT pg_reload_conf()"),
        {"WalEncryption WAL of db1": "update"},
        ('"off, waiting for a restart" => "off"',),
        repair="in place, reload",
        batch="13",
    ),
    Row(
        "KeyProvider",
        "URL and CA path changed",
        lambda cluster: drift_actions.provider(
            cluster,
            url=cluster.bao.address.replace("127.0.0.1", "localhost"),
            ca=str(cluster.beside("db1", "vault-ca.pem")),
        ),
        {"KeyProvider vault": "update"},
        ("caPath", "https://localhost:"),
        batch="13",
        here=True,
    ),
    Row(
        "Server (primary)",
        "a parameter that can only change at start, reset by ALTER SYSTEM",
        drift_actions.sql("ALTER SYSTEM RESET unix_socket_directories; SELECT pg_reload_conf()"),
        {"Server db1": "update"},
        ("pendingRestart", "unix_socket_directories"),
        repair="in place, reload",
        batch="14",
    ),
    Row(
        "Server (standby)",
        "the file of its socket removed, as something that cleans a directory does",
        lambda cluster: (cluster.sockets("db2") / f".s.PGSQL.{cluster.ports['db2']}").unlink(),
        {"Server db2": "update"},
        ('socket : "removed" => "there"', "the socket of server db2 was removed, and only a restart creates it again"),
        repair="restart of this standby",
        here=True,
    ),
    Row(
        "ReplicationSlot",
        "unreserved, with its standby down",
        drift_actions.unreserve,
        {"Server db1": "update", "Server db3": "update", "ReplicationCheck db3": "update"},
        ('max_slot_wal_keep_size : "16MB" => "4GB"',),
        repair="start: the WAL is still there",
        here=True,
    ),
    Row(
        "DataDirectory",
        "the standby was started without standby.signal",
        drift_actions.start_as_primary,
        {**_recloned("db3"), "Topology drift": "update"},
        ('"it was promoted, or started without standby.signal" => "the primary"',),
        repair="a new base backup of this standby",
        here=True,
    ),
    Row(
        "Server (primary)",
        "stopped",
        lambda cluster: cluster.stop("db1"),
        {"Server db1": "update", "ReplicationCheck db2": "update", "ReplicationCheck db3": "update"},
        (
            "running : false => true",
            "shown as last known",
            '"not known: the primary does not answer" => "from its slot"',
        ),
        repair="start",
        here=True,
    ),
    Row(
        "Server (primary)",
        "killed",
        lambda cluster: cluster.kill("db1"),
        {"Server db1": "update", "ReplicationCheck db2": "update", "ReplicationCheck db3": "update"},
        ("running : false => true",),
        repair="start",
        here=True,
    ),
    Row(
        "Server",
        "all of them down, as after a reboot",
        drift_actions.reboot,
        {f"{kind} {name}": "update" for kind, name in drift_actions.ALL_DOWN},
        repair="start",
        here=True,
    ),
    Row(
        "Server (standby)",
        "paused itself: a parameter was raised on the primary",
        drift_actions.raise_on_primary,
        {"Server db2": "update", "Server db3": "update"},
        (
            'replay : "paused" => "running"',
            *(f"server {name} will be restarted: max_locks_per_transaction" for name in ("db2", "db3")),
        ),
        repair="restart",
        here=True,
    ),
    Row(
        "ReplicationSlot",
        "lost: its WAL is gone",
        drift_actions.lose_wal,
        {"ReplicationSlot tde_db3": "replace", **_recloned("db3")},
        ('"lost" => "reserved"', '"the WAL that it needs is gone" => "the primary"'),
        repair="a new base backup of this standby",
        here=True,
    ),
    Row(
        "DataDirectory",
        "the standby was promoted",
        drift_actions.promote,
        {**_recloned("db3"), "Topology drift": "update"},
        ('"it was promoted, or started without standby.signal" => "the primary"',),
        repair="a new base backup of this standby",
        here=True,
    ),
    Row(
        "DataDirectory",
        "data directory removed",
        drift_actions.remove_data("db2"),
        {"DataDirectory db2": "create", "Server db2": "create", "ReplicationCheck db2": "replace"},
        repair="a new base backup of this standby",
        here=True,
    ),
    Row(
        "KeyBinding",
        "another key set by hand",
        drift_actions.set_key("server", "by-hand"),
        {"KeyBinding server key": "update"},
        ('"by-hand" => "drift-principal-key"',),
        repair="in place: a rotation back",
    ),
]


@dataclass(frozen=True)
class Refusal:
    """What is not repaired by itself: `command` fails with words that say why, and nothing is changed. `undo` is the person's."""

    resource: str
    what: str
    act: Callable[[Cluster], object]
    says: str
    undo: Callable[[Cluster], object]
    command: str = "preview"
    slow: bool = False
    """Whether it is for `make soak`."""

    def __str__(self) -> str:
        return f"{self.resource}: {self.what}"


REFUSALS = [
    Refusal(
        "DataDirectory",
        "another cluster in its place",
        drift_actions.another_cluster("db1"),
        "db1/data is not empty and was not made by this stack: it is never written to",
        drift_actions.first_cluster("db1"),
    ),
    Refusal(
        "DataDirectory",
        "another cluster in its place",
        drift_actions.another_cluster("db3"),
        "db3/data is not empty and was not made by this stack: it is never written to",
        drift_actions.first_cluster("db3"),
        slow=True,
    ),
    Refusal(
        "KeyProvider",
        "another mount set by hand",
        drift_actions.elsewhere,
        'the keys of the running cluster are in "elsewhere" and stay there, and the stack file says "tde-drift"',
        drift_actions.back,
    ),
    Refusal(
        "ReplicationSlot",
        "dropped, and no other left",
        drift_actions.no_slot_left,
        "replication slot tde_db3: all replication slots are in use (SQLSTATE 53400). "
        'Free one or increase "max_replication_slots".',
        drift_actions.sql(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'other%'"
        ),
        command="up",
    ),
    Refusal(
        "DataDirectory",
        "the standby was promoted, and the primary is down",
        drift_actions.fail_over,
        "db3 was promoted (or started without standby.signal), and the primary db1 does not run",
        lambda cluster: cluster.start("db1"),
    ),
    Refusal(
        "Server (primary)",
        "a standby now",
        drift_actions.as_standby,
        "is declared as the primary and is a standby now",
        drift_actions.as_primary,
    ),
    Refusal(
        "ReplicationSlot",
        "a logical slot under its name",
        drift_actions.logical_slot,
        "a logical slot has taken this name: it is left as it is",
        drift_actions.sql("SELECT pg_drop_replication_slot('tde_db3')"),
    ),
    Refusal(
        "HbaRule",
        "line removed, and a wrong line elsewhere in the file",
        drift_actions.hba(lambda text: drift_actions.without_ours(text) + "host all all nowhere/32 trust\n"),
        "is wrong (",
        drift_actions.hba(lambda text: text.replace("host all all nowhere/32 trust\n", "")),
        command="up",
    ),
    Refusal(
        "HostFile (Vault token)",
        "a directory in its place",
        drift_actions.token_directory,
        "is a directory: it is left as it is",
        lambda cluster: cluster.file("db3", "vault-token").rmdir(),
        command="up",
    ),
    Refusal(
        "Vault",
        "sealed",
        lambda cluster: cluster.bao.seal(),
        "sealed",
        lambda cluster: cluster.bao.unseal(),
    ),
    Refusal(
        "Vault",
        "does not answer",
        lambda cluster: cluster.bao.suspend(),
        "timed out",
        lambda cluster: cluster.bao.resume(),
        slow=True,
    ),
    Refusal(
        "Vault",
        "down",
        lambda cluster: cluster.bao.kill(),
        "refused",
        lambda cluster: cluster.bao.start(),
    ),
]

NO_DRIFT = [
    ("HbaRule", "the file in CRLF", drift_actions.hba(lambda text: text.replace("\n", "\r\n"))),
    (
        "HbaRule",
        "tabs for spaces, and a quoted name",
        drift_actions.hba(
            lambda text: text.replace(
                drift_actions.ours(text),
                'host\treplication\t"replicator"\t127.0.0.1/32\tscram-sha-256\t# tde-replication\n',
            )
        ),
    ),
    (
        "HbaRule",
        "address and netmask apart",
        drift_actions.hba(
            lambda text: text.replace(
                drift_actions.ours(text),
                "host replication replicator 127.0.0.1 255.255.255.255 scram-sha-256 # tde-replication\n",
            )
        ),
    ),
    (
        "HbaRule",
        "comments, an include directive and other people's rules below",
        drift_actions.hba(
            lambda text: (
                text + "# ours\ninclude_if_exists more.conf\nhost replication other 192.0.2.0/24 scram-sha-256\n"
            )
        ),
    ),
    ("Server (primary)", "a checkpoint and a new WAL file", drift_actions.sql("CHECKPOINT; SELECT pg_switch_wal()")),
    ("Server (primary)", "its log rotated", drift_actions.sql("SELECT pg_rotate_logfile()")),
    ("Server (primary)", "restarted by hand", drift_actions.restart_primary),
    (
        "Server (primary)",
        "a parameter that is not declared, changed by ALTER SYSTEM and not loaded",
        drift_actions.sql("ALTER SYSTEM SET commit_delay = 5"),
    ),
    (
        "Server (primary)",
        "ALTER ROLE … SET and ALTER DATABASE … SET of a declared parameter: the server's own value is as declared",
        drift_actions.sql(
            "ALTER ROLE postgres SET work_mem = '1MB'; ALTER DATABASE postgres SET synchronous_commit = off"
        ),
    ),
    ("Server (standby)", "restarted by hand", drift_actions.bounce("db2")),
]
