"""The table of changes: what somebody edits in the stack file of a running cluster, what `preview` plans, and which servers
restart for it. Nothing else happens: nobody is cloned again that is not named."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One edit. `plan` is all that the preview holds; `restarts` are told there, and are all that restarts."""

    what: str
    edit: Callable[[Document], object]
    plan: Mapping[str, str]
    restarts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.what


def _put(section: str, **values: Any) -> Callable[[Document], object]:
    def edit(cluster: Document) -> None:
        cluster[section] = cluster.get(section, {}) | values

    return edit


def _all(*edits: Callable[[Document], object]) -> Callable[[Document], object]:
    return lambda cluster: [edit(cluster) for edit in edits]


def _settings(server: str, **values: str | None) -> Callable[[Document], object]:
    """Set parameters of db1 (the primary), db2 or db3; None takes one out."""

    def edit(cluster: Document) -> None:
        settings = cluster["servers"][server].setdefault("settings", {})
        for name, value in values.items():
            if value is None:
                del settings[name]
            else:
                settings[name] = value

    return edit


def _server(server: str, **values: Any) -> Callable[[Document], object]:
    return lambda cluster: cluster["servers"][server].update(values)


def _rename(server: str, name: str) -> Callable[[Document], object]:
    def edit(cluster: Document) -> None:
        cluster["servers"][name] = cluster["servers"].pop(server)
        cluster["primary"] = name if cluster["primary"] == server else cluster["primary"]

    return edit


def of_standby(name: str, step: str, provider: str = "vault") -> dict[str, str]:
    """The plan for a standby that comes or goes, where that is the key provider's name."""
    kinds = (
        *(
            "Policy {}-policy",
            "Token {}-token",
            "HostFile {}-vault-token",
            "HostFile {}-vault-ca",
            "HostFile {}-pgpass",
        ),
        *(
            "CleanupRecord {}",
            "ReplicationSlot tde_{}",
            "DataDirectory {}",
            "Server {}",
            "WalEncryption WAL of {}",
            "ReplicationCheck {}",
        ),
    )
    return files_of({kind.format(name): step for kind in kinds}, provider)


def files_of(plan: Mapping[str, str], provider: str) -> dict[str, str]:
    """The same with the files of that key provider."""
    return {re.sub(r"^(HostFile .*)-vault-", rf"\1-{provider}-", name): step for name, step in plan.items()}


def edited(cluster: Document, edit: Callable[[Document], object]) -> Document:
    changed = copy.deepcopy(cluster)
    edit(changed)
    return changed


DB1, DB2, DB3 = ({f"Server {name}": "update"} for name in ("db1", "db2", "db3"))
ALL = DB1 | DB2 | DB3
WAL = {"WalEncryption WAL of db1": "update"}
WALS = {f"WalEncryption WAL of {name}": "update" for name in ("db1", "db2", "db3")}
BACKUPS = {"DataDirectory db2": "update", "DataDirectory db3": "update"}
"""Where a clone would come from is kept, and makes none."""
PASSFILES = {"HostFile db2-pgpass": "update", "HostFile db3-pgpass": "update"}
BINDINGS = {"KeyBinding server key": "update", "KeyBinding default key": "update"}
CHECKS = {"ReplicationCheck db2": "update", "ReplicationCheck db3": "update"}
TOKENS = {
    **{f"Token {name}-token": "replace" for name in ("db1", "db2", "db3")},
    **{f"HostFile {name}-vault-token": "update" for name in ("db1", "db2", "db3")},
}
ODD = 'my "role"$(id)'

CHANGES = [
    Change(
        "parameters that a reload takes up, of any context but one",
        _all(
            _settings("db1", work_mem="8MB", log_min_duration_statement="250ms", checkpoint_timeout="10min"),
            _settings("db2", work_mem="9MB", wal_retrieve_retry_interval="2s"),
            _put("replication", maxSlotWalKeepSize="5GB"),
            _server("db1", restart="refused"),
        ),
        ALL | WAL,
    ),
    Change(
        "the same values in other units; what only says how to do it",
        _all(
            _settings("db1", work_mem="8192kB", checkpoint_timeout="600s"),
            lambda cluster: cluster.update(disposable=True, protect=False),
        ),
        {},
    ),
    Change(
        "parameters taken out; a standby's listen",
        _all(
            _settings("db1", log_min_duration_statement=None),
            _settings("db2", work_mem=None, wal_retrieve_retry_interval=None),
            _server("db2", listen=["127.0.0.1", "localhost"]),
        ),
        DB1 | DB2,
        ("db2",),
    ),
    Change(
        "parameters that can only change at start, one of which standbys must follow",
        _all(_server("db1", restart="allowed"), _settings("db1", shared_buffers="24MB", max_connections="130")),
        ALL | WAL,
        ("db1", "db2", "db3"),
    ),
    Change(
        "the one taken out, the other lowered",
        _settings("db1", shared_buffers=None, max_connections="90"),
        ALL,
        ("db1", "db2", "db3"),
    ),
    Change(
        "replication.role",
        _put("replication", role=ODD),
        {
            "SecretV2 change-replication-secret": "replace[retain]",
            "SecretContent change-replication-secret": "replace",
            f"ReplicationRole {ODD}": "create",
            f"HbaRule {ODD} from 127.0.0.1/32": "create",
            **PASSFILES,
            **BACKUPS,
            **DB2,
            **DB3,
            "HbaRule replicator from 127.0.0.1/32": "delete",
            "ReplicationRole replicator": "delete",
        },
    ),
    Change(
        "vault.tokenPeriod and a standby's address",
        _all(_put("vault", tokenPeriod="24h"), _server("db2", address="127.0.0.0/8")),
        {**TOKENS, f"HbaRule {ODD} from 127.0.0.0/8": "create"},
    ),
    Change(
        "key.name",
        _put("key", name="second"),
        {"PrincipalKey second": "create", **BINDINGS, **CHECKS, "PrincipalKey change-principal-key": "delete"},
    ),
    Change(
        "cipher, with another key",
        _all(_put("key", name="third"), lambda cluster: cluster.update(cipher="aes_256")),
        {
            **ALL,
            **BACKUPS,
            "PrincipalKey third": "create",
            **BINDINGS,
            **CHECKS,
            "PrincipalKey second": "delete",
        },
    ),
    Change(
        "walEncryption on",
        lambda cluster: cluster.update(walEncryption=True),
        {**WALS, **BACKUPS},
        ("db1", "db2", "db3"),
    ),
    Change(
        "cipher, where WAL is encrypted",
        _all(_put("key", name="fourth"), lambda cluster: cluster.update(cipher="aes_128")),
        {
            **ALL,
            **BACKUPS,
            "PrincipalKey fourth": "create",
            **BINDINGS,
            **CHECKS,
            "PrincipalKey third": "delete",
        },
        ("db1", "db2", "db3"),
    ),
    Change(
        "walEncryption off",
        lambda cluster: cluster.update(walEncryption=False),
        {**WALS, **BACKUPS},
        ("db1", "db2", "db3"),
    ),
    Change(
        "vault.provider",
        _put("vault", provider="other"),
        {
            "KeyProvider other": "create",
            "PrincipalKey fourth": "replace",
            **BINDINGS,
            "KeyProvider vault": "delete",
            **{f"CleanupRecord {name}": "update" for name in ("db1", "db2", "db3")},
            **{f"HostFile {name}-other-{kind}": "create" for name in ("db1", "db2", "db3") for kind in ("token", "ca")},
            **{f"HostFile {name}-vault-{kind}": "delete" for name in ("db1", "db2", "db3") for kind in ("token", "ca")},
        },
    ),
    Change("key.scope", _put("key", scope=["server"]), {"KeyBinding default key": "delete"}),
    Change(
        "database",
        lambda cluster: cluster.update(database='app "1"'),
        {
            'Extension pg_tde in app "1"': "create",
            "KeyProvider other": "update",
            "PrincipalKey fourth": "update",
            "KeyBinding server key": "update",
            **CHECKS,
            "Extension pg_tde in postgres": "delete",
        },
    ),
]


def _beside(cluster: Document) -> Document:
    """A server that is not there yet."""
    found = cluster["servers"]["db3"]
    return {**found, "port": 1 + found["port"], "dataDirectory": found["dataDirectory"].replace("/db3/", "/db9/")}


REFUSED: list[tuple[str, Callable[[Document], object], str]] = [
    (
        "another mount",
        _put("vault", mount="elsewhere"),
        'cluster.vault.mount: the keys of the running cluster are in "tde-change"',
    ),
    (
        "its mount called somebody else's",
        _put("vault", existing=True),
        'cluster.vault.existing: "tde-change" was made by this stack, which is disposable',
    ),
    (
        "its mount called somebody else's, and the stack not disposable any more, in one edit",
        _all(_put("vault", existing=True), lambda cluster: cluster.update(disposable=False)),
        'cluster.vault.existing: "tde-change" was made by this stack, which is disposable',
    ),
    (
        "no encryption any more",
        lambda cluster: cluster.update(encryption="off", walEncryption=False),
        "cluster.encryption: the cluster is encrypted",
    ),
    (
        "another cipher with the same key",
        lambda cluster: cluster.update(cipher="aes_256"),
        "cluster.cipher: principal key fourth, which is the server key, has the length for aes_128 and keeps it. For aes_256, ",
    ),
    (
        "another cipher with another key, and not for all that have one",
        _all(_put("key", name="fifth", scope=["server"]), lambda cluster: cluster.update(cipher="aes_256")),
        "cluster.cipher: principal key fourth, which is the default key, has the length for aes_128 and keeps it. For aes_256, ",
    ),
    (
        "values that a parameter does not take, and a name that none has",
        _all(_settings("db1", work_mem="lots"), _settings("db2", work_mem="-5", no_such_thing="1")),
        'server db1: invalid value for parameter "work_mem": "lots": nothing is changed. Correct its settings',
    ),
    (
        "a standby with less than its primary has",
        _settings("db2", max_connections="20"),
        "cluster.servers.db2.settings.max_connections: 20 is lower than the primary's 90",
    ),
    (
        "the primary renamed with its directory",
        _rename("db1", "db9"),
        "is that of server db1, and a server is not renamed with its data",
    ),
    (
        "another primary",
        lambda cluster: cluster.update(primary="db9", servers={**cluster["servers"], "db9": _beside(cluster)}),
        "db9 is not there yet: run `up` with primary: db1 first, so that it is cloned. Nothing is changed",
    ),
    (
        "the primary elsewhere",
        _server("db1", dataDirectory="/tmp/tde-elsewhere/data"),
        "its new place would be an empty cluster",
    ),
    (
        "the primary adopted, which was made",
        _server("db1", adopt=True, restart="allowed"),
        "was made by this stack: leave adopt out",
    ),
    (
        "a standby renamed with its directory",
        _rename("db3", "db4"),
        "is that of server db3, and a server is not renamed with its data",
    ),
]
