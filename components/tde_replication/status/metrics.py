"""Metrics in the text format of Prometheus, for the textfile collector of node_exporter. Names are those of postgres_exporter
where it has the same metric."""

from collections.abc import Iterator

from tde_replication.errors import escaped
from tde_replication.status.backups import age
from tde_replication.status.encryption_checks import is_encrypted
from tde_replication.status.finding import Level, Verdict
from tde_replication.status.model import Instance, Server, Snapshot
from tde_replication.status.topology import links

Value = float | int | bool | None
Sample = tuple[str, dict[str, str], Value]
HELP = {
    "tde_status": "Exit status of the last look: 0 well, 1 degraded, 2 broken, 3 cannot tell",
    "tde_status_time_seconds": "When the cluster was looked at last",
    "tde_finding": "1 for each thing that is wrong",
    "tde_encrypted": "Whether the cluster is encrypted, as far as is known",
    "tde_server_takes_writes": "Whether the server takes writes",
    "tde_server_timeline": "Timeline of the server",
    "tde_pg_tde_info": "Version of the server's pg_tde, as it says it",
    "tde_pg_tde_loaded": "Whether the server has loaded pg_tde",
    "tde_wal_encrypted": "Whether the server encrypts the WAL that it writes",
    "tde_key_opens": "Whether the server could open its principal key in Vault just now",
    "tde_key_set_time_seconds": "When the principal key was set on the server",
    "tde_vault_token_seconds": "Time left of the server's Vault token",
    "tde_replay_paused": "Whether the standby's replay is paused",
    "tde_checksum_failures": "Checksum failures of all databases of the server",
    "tde_base_backup_age_seconds": "Time since the end of the newest base backup that the server knows of",
    "tde_backup_age_seconds": "Time since the end of the newest backup in pgBackRest's repository",
    "tde_restore_drill_age_seconds": "Time since the last restore drill",
    "tde_restore_drill_failed": "Whether the last restore drill failed",
    "tde_archiver_failing": "Whether the newest attempt to archive WAL failed",
    "tde_replication_lag_bytes": "How far the standby is behind, by step: write, flush, replay",
    "tde_replication_lag_seconds": "How far the standby is behind, by step: write, flush, replay",
    "tde_replication_synchronous": "Whether commits may wait for the standby",
    "tde_slot_held_back_bytes": "WAL that the server keeps for the slot",
    "tde_database_bytes": "Size of relations, by what protects them: encrypted, clear, catalog, unknown",
    "tde_database_clear_tables": "Number of tables in clear",
    "pg_up": "Whether the server could be asked",
    "pg_static": "Version of the server",
    "pg_replication_is_replica": "Indicates if the server is a replica",
    "pg_replication_lag_seconds": "Replication lag behind master in seconds",
    "pg_replication_slot_slot_is_active": "Whether the replication slot is active or not",
    "pg_replication_slot_safe_wal_size_bytes": "Bytes that can be written to WAL before the slot is in danger of being lost",
    "pg_replication_slot_wal_status": "Availability of WAL files claimed by this slot",
    "pg_stat_archiver_archived_count": "Number of WAL files that have been successfully archived",
    "pg_stat_archiver_failed_count": "Number of failed attempts for archiving WAL files",
    "pg_stat_archiver_last_archive_age": "Time in seconds since last WAL segment was successfully archived",
    "pg_database_size_bytes": "Disk space used by the database",
}
COUNTERS = {"pg_stat_archiver_archived_count", "pg_stat_archiver_failed_count"}


def metrics(snapshot: Snapshot, verdict: Verdict) -> str:
    return _rendered(snapshot.stack, [*_cluster(snapshot, verdict), *_servers(snapshot), *_databases(snapshot)])


def problem(stack: str, now: float) -> str:
    """For a cluster that could not be looked at: an old file would say that all is well."""
    return _rendered(stack, [("tde_status", {}, Level.UNKNOWN.value), ("tde_status_time_seconds", {}, now)])


def _cluster(snapshot: Snapshot, verdict: Verdict) -> Iterator[Sample]:
    yield "tde_status", {}, verdict.level.value
    yield "tde_status_time_seconds", {}, snapshot.time.timestamp()
    yield "tde_encrypted", {}, is_encrypted(snapshot)
    if stanza := snapshot.stanza:
        label = {"stanza": stanza.name}
        yield "tde_backup_age_seconds", label, age(stanza.last.ended, snapshot.time) if stanza.last else None
        if drill := stanza.drill:
            by = label | {"server": drill.server}
            yield "tde_restore_drill_age_seconds", by, age(drill.time, snapshot.time)
            yield "tde_restore_drill_failed", by, bool(drill.problem)
    found = {(one.level.word.lower(), one.check, one.server) for one in verdict.findings}
    for level, check, server in sorted(found):
        yield "tde_finding", {"level": level, "check": check, "server": server}, 1


def _servers(snapshot: Snapshot) -> Iterator[Sample]:
    known = links(snapshot)
    for server in snapshot.servers:
        label = {"server": server.name}
        yield "pg_up", label, server.instance is not None
        if server.instance:
            yield from _instance(server, server.instance, label)
        if link := known.get(server.name):
            sender = link.sender
            by = label | {"upstream": link.upstream.name}
            yield "tde_replication_synchronous", by, sender.sync_state in {"sync", "quorum"}
            for step, lag in (("write", sender.write), ("flush", sender.flush), ("replay", sender.replay)):
                yield "tde_replication_lag_bytes", by | {"step": step}, lag.bytes
                yield "tde_replication_lag_seconds", by | {"step": step}, 0 if lag.bytes == 0 else lag.seconds


def _instance(server: Server, instance: Instance, label: dict[str, str]) -> Iterator[Sample]:
    yield "pg_static", label | {"short_version": instance.version}, 1
    yield "tde_server_takes_writes", label, server.writes
    yield "tde_server_timeline", label, instance.timeline
    yield "pg_replication_is_replica", label, instance.in_recovery
    yield "pg_replication_lag_seconds", label, instance.replay.last_transaction_age if instance.replay else 0
    if instance.replay:
        yield "tde_replay_paused", label, instance.replay.paused != "not paused"
    yield "tde_checksum_failures", label, instance.checksum_failures
    yield "pg_stat_archiver_archived_count", label, instance.archiver.archived
    yield "pg_stat_archiver_failed_count", label, instance.archiver.failed
    yield "pg_stat_archiver_last_archive_age", label, instance.archiver.last_archived_age
    yield "tde_archiver_failing", label, instance.archiver.failing
    yield "tde_base_backup_age_seconds", label, instance.last_backup.age if instance.last_backup else None
    for slot in instance.slots:
        named = label | {"slot_name": slot.name, "slot_type": "physical"}
        yield "pg_replication_slot_slot_is_active", named, slot.active
        yield "pg_replication_slot_safe_wal_size_bytes", named, slot.safe_wal_bytes
        yield "pg_replication_slot_wal_status", named | {"wal_status": slot.wal_status or ""}, 1
        yield "tde_slot_held_back_bytes", named, slot.held_back_bytes
    yield "tde_pg_tde_loaded", label, instance.tde_loaded
    if server.encryption:
        yield "tde_pg_tde_info", label | {"version": server.encryption.version}, 1
    yield "tde_wal_encrypted", label, instance.wal_encrypted
    yield from _keys(server, label)


def _keys(server: Server, label: dict[str, str]) -> Iterator[Sample]:
    for key in server.encryption.keys if server.encryption else ():
        named = label | {"scope": key.scope, "key": key.name, "provider": key.provider}
        yield "tde_key_opens", named, None if key.problem is None else not key.problem
        yield "tde_key_set_time_seconds", named, key.since.timestamp() if key.since else None
    if server.token:
        yield "tde_vault_token_seconds", label, 0 if server.token.gone else server.token.seconds_left


def _databases(snapshot: Snapshot) -> Iterator[Sample]:
    for database in snapshot.databases:
        if database.problem:
            continue
        label = {"server": snapshot.databases_of or "", "datname": database.name}
        yield "pg_database_size_bytes", label, database.total_bytes
        parts = {
            "encrypted": database.encrypted_bytes,
            "clear": database.clear_bytes,
            "catalog": database.catalog_bytes,
            "unknown": database.unknown_bytes,
        }
        for protection, number in parts.items():
            yield "tde_database_bytes", label | {"protection": protection}, number
        yield "tde_database_clear_tables", label, database.clear_table_count


def _rendered(stack: str, samples: list[Sample]) -> str:
    """All samples of one metric together, as the format wants them; what is not known has no sample."""
    lines = []
    for name, text in HELP.items():
        found = [(labels, value) for one, labels, value in samples if one == name and value is not None]
        if found:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {'counter' if name in COUNTERS else 'gauge'}"]
            lines += [f"{name}{_labels({'stack': stack} | labels)} {_number(value)}" for labels, value in found]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_label(value)}"' for name, value in labels.items()) + "}"


def _label(value: str) -> str:
    return escaped(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))
