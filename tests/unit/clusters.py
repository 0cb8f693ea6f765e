"""Clusters that are made up: a healthy one, and what becomes of it when one thing changes."""

from datetime import UTC, datetime
from typing import Any

from tde_replication.status.backups import Drill, Stanza, StoredBackup
from tde_replication.status.model import (
    Archiver,
    Database,
    Encryption,
    Instance,
    Key,
    Lag,
    Provider,
    Receiver,
    Replay,
    Sender,
    Server,
    Slot,
    Snapshot,
    Table,
    Token,
)

GIB = 2**30
HOUR = 3600
SINCE = datetime(2026, 11, 17, 12, tzinfo=UTC)
TIME = datetime(2026, 11, 29, 12, tzinfo=UTC)
NONE = Lag(bytes=0)
CLUSTER = "7301"
HOSTILE = 'x"\\\n\x1b[31m\u202e##[error]\n::set-output'


def encryption(**changed: Any) -> Encryption:
    keys = tuple(
        Key(scope=scope, name="orders-2026", provider="vault", since=SINCE, problem="")
        for scope in ("server", "default")
    )
    provider = Provider(name="vault", type="vault-v2", address="https://vault.example.net:8200", mount="tde-orders")
    return Encryption(**{"version": "pg_tde 2.2.2", "providers": (provider,), "keys": keys} | changed)


def instance(**changed: Any) -> Instance:
    common: dict[str, Any] = {
        "version": "18.6",
        "version_number": 180006,
        "system_identifier": CLUSTER,
        "in_recovery": False,
        "timeline": 3,
        "uptime": 7200.0,
        "archiver": Archiver(mode="off"),
        "checksums": True,
        "checksum_failures": 0,
        "tde_loaded": True,
        "wal_encrypted": True,
    }
    return Instance(**common | changed)


def server(name: str, **changed: Any) -> Server:
    common: dict[str, Any] = {
        "name": name,
        "declared": "primary" if name == "db1" else "standby",
        "address": f"{name}.example.net:5432",
        "slot": f"tde_{name}",
        "state": "running",
        "encryption": encryption(),
        "token": Token(seconds_left=700 * HOUR, period=768 * HOUR),
    }
    return Server(**common | changed)


def sender(name: str, **changed: Any) -> Sender:
    common: dict[str, Any] = {
        "application_name": name,
        "client": "192.0.2.7",
        "slot": f"tde_{name}",
        "state": "streaming",
    }
    return Sender(**common | {"write": NONE, "flush": NONE, "replay": NONE} | changed)


def slot(name: str, **changed: Any) -> Slot:
    common: dict[str, Any] = {"name": f"tde_{name}", "active": True, "wal_status": "reserved"}
    return Slot(**common | {"safe_wal_bytes": 63 * GIB, "held_back_bytes": 2**20} | changed)


def standby(name: str, upstream: str = "db1", **changed: Any) -> Server:
    receiver = Receiver(status="streaming", host=f"{upstream}.example.net", port=5432, slot=f"tde_{name}")
    common: dict[str, Any] = {
        "in_recovery": True,
        "receiver": receiver,
        "replay": Replay(paused="not paused", delay=0.0),
    }
    return server(name, declared_upstream=upstream, instance=instance(**common | changed))


def healthy() -> Snapshot:
    """db2 streams from db1, db3 from db2."""
    primary = server("db1", instance=instance(senders=(sender("db2", sync_state="sync"),), slots=(slot("db2"),)))
    middle = standby("db2", senders=(sender("db3"),), slots=(slot("db3"),))
    table = Table(name="public.notes", bytes=GIB)
    return Snapshot(
        stack="orders",
        time=TIME,
        encryption="required",
        wal_encryption=True,
        primary="db1",
        servers=(primary, middle, standby("db3", "db2")),
        databases=(
            Database(
                name="orders",
                total_bytes=414 * GIB,
                encrypted_bytes=412 * GIB,
                clear_bytes=GIB,
                clear_tables=(table,),
                clear_table_count=1,
                extension="2.2",
            ),
        ),
        databases_of="db1",
    )


def changed(name: str, **fields: Any) -> Snapshot:
    """The healthy one, with another server of this name; fields of its instance go into that."""
    snapshot = healthy()
    servers = []
    for one in snapshot.servers:
        if one.name == name:
            own = {key: value for key, value in fields.items() if key in Server.model_fields}
            within = {key: value for key, value in fields.items() if key not in own}
            running = one.instance.model_copy(update=within) if one.instance else None
            servers.append(one.model_copy(update={"instance": running} | own))
        else:
            servers.append(one)
    return snapshot.model_copy(update={"servers": tuple(servers)})


def gone(name: str, state: str = "down", **others: Any) -> Snapshot:
    snapshot = changed(name, instance=None, encryption=None, token=None, state=state, problem="no server runs on /data")
    return snapshot.model_copy(update=others)


def key(**fields: Any) -> Encryption:
    return encryption(keys=(encryption().keys[0].model_copy(update=fields),))


DRILL = Drill(
    time=TIME,
    server="db2",
    stanza="orders",
    backup="F",
    recovered_to=TIME,
    seconds=52,
    databases=1,
    tables=2,
    encrypted=1,
    rows=3,
)
BACKUP = StoredBackup(label="F", type="full", ended=TIME, bytes=GIB)


def archived(**fields: Any) -> Snapshot:
    """The healthy one, which archives its WAL; `fields` are of its stanza."""
    common: dict[str, Any] = {
        "name": "orders",
        "server": "db1",
        "state": "there",
        "backups": 2,
        "last": BACKUP,
        "drill": DRILL,
    }
    stanza = Stanza(**common | fields)
    return changed("db1", archiver=Archiver(mode="on")).model_copy(update={"stanza": stanza})
