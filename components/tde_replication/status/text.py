"""A cluster for a person at a terminal: the verdict first, then the servers as a tree, then what is wrong and what to do."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from tde_replication.errors import escaped
from tde_replication.status.backups import Drill, age
from tde_replication.status.due import due
from tde_replication.status.encryption_checks import is_encrypted, not_encrypted
from tde_replication.status.figures import amounts, bytes_on_disk, faults, versions, wal, wal_in_clear
from tde_replication.status.finding import Verdict
from tde_replication.status.model import Database, Encryption, Instance, Key, Server, Slot, Snapshot
from tde_replication.status.topology import Link, links, others, tree
from tde_replication.status.words import duration, size

GAP = "   "
TABLES_NAMED = 5
NEVER_ENCRYPTED = "system catalogs, sort and other temporary files, server logs"


def text(snapshot: Snapshot, verdict: Verdict) -> str:
    known = links(snapshot)
    lines = [*_head(snapshot, verdict), *_servers(snapshot, known), *_databases(snapshot)]
    lines += [*_archive(snapshot), _not_protected(snapshot), *_dates(snapshot)]
    lines += [
        f"{finding.level.word}  {finding.server or snapshot.stack}: {finding.whole}" for finding in verdict.findings
    ]
    return escaped("\n".join([*lines, *_faults(snapshot)])) + "\n"


def _head(snapshot: Snapshot, verdict: Verdict) -> Iterator[str]:
    yield _row(
        snapshot.stack,
        verdict.level.word,
        _primary(snapshot),
        ", ".join(versions(snapshot)),
        *([] if not_encrypted(snapshot) else [_encrypted(snapshot)]),
    )
    if why := not_encrypted(snapshot):
        yield f"NOT ENCRYPTED: {why}"


def _primary(snapshot: Snapshot) -> str:
    names = [server.name for server in snapshot.writers]
    if len(names) > 1:
        return f"{len(names)} PRIMARIES: {' and '.join(names)}"
    if any(server.state == "unknown" for server in snapshot.servers) and not names:
        return "primary not known"
    return f"primary {names[0]}" if names else "NO PRIMARY"


def _encrypted(snapshot: Snapshot) -> str:
    found = amounts(snapshot)
    if not found or is_encrypted(snapshot) is None:
        return "whether it is encrypted is not known"
    return f"encrypted: {size(found.encrypted)} of {size(found.whole)}, {wal(snapshot)}"


def _servers(snapshot: Snapshot, known: Mapping[str, Link]) -> Iterator[str]:
    open_branches: dict[int, bool] = {}
    for depth, last, server in tree(snapshot, dict(known)):
        open_branches[depth] = not last
        before = "".join("│  " if open_branches[level] else "   " for level in range(1, depth))
        branch = before + ("└─ " if last else "├─ ") if depth else ""
        below = before + ("   " if last else "│  ") if depth else ""
        first, *more = _server(server, snapshot, known.get(server.name), dict(known))
        yield branch + first
        yield from (f"{below}{GAP}{line}" for line in more)


def _server(server: Server, snapshot: Snapshot, link: Link | None, known: dict[str, Link]) -> Iterator[str]:
    instance = server.instance
    if instance is None:
        word = "CANNOT BE ASKED" if server.state == "unknown" else server.state.upper()
        yield _row(server.name, word, server.address, *_slots(server, snapshot))
        return
    if server.writes:
        yield _row(
            server.name, "primary", server.address, f"timeline {instance.timeline}", f"up {duration(instance.uptime)}"
        )
    else:
        yield _row(server.name, _streaming(instance, link), *_lag(link), *_slots(server, snapshot))
        yield _row(
            server.address, f"timeline {instance.timeline}", f"up {duration(instance.uptime)}", *_replay(instance)
        )
    if line := _row(*_keys(server, snapshot), _token(server)):
        yield line
    if server.on_disk and not not_encrypted(snapshot):
        yield bytes_on_disk(server.on_disk)
    if line := _row(*_keeping(instance)):
        yield line
    for sender in others(server, known):
        yield f"also streams: {sender.application_name} from {sender.client or 'a socket'} ({sender.state})"


def _streaming(instance: Instance, link: Link | None) -> str:
    if link:
        kind = {"async": "asynchronous", "sync": "synchronous", "quorum": "synchronous (quorum)"}
        return (
            f"{link.sender.state} from {link.upstream.name}, {kind.get(link.sender.sync_state, link.sender.sync_state)}"
        )
    if instance.receiver and instance.receiver.status == "streaming":
        return f"standby, streams from {instance.receiver.host}:{instance.receiver.port}"
    return "standby, NOT STREAMING"


def _lag(link: Link | None) -> Iterator[str]:
    if not link:
        return
    lags = {"write": link.sender.write, "flush": link.sender.flush, "replay": link.sender.replay}
    told = {name: f"{size(lag.bytes)} ({_seconds(lag.seconds, lag.bytes)})" for name, lag in lags.items()}
    each = f"{', '.join(f'{name} {lag}' for name, lag in told.items())}"
    yield f"{told['write'] if len(set(told.values())) == 1 else each} behind"


def _seconds(seconds: float | None, number: int | None) -> str:
    """The server measures none of a standby that has everything."""
    return "0.0 s" if seconds is None and number == 0 else duration(seconds)


def _slots(server: Server, snapshot: Snapshot) -> Iterator[str]:
    for other in snapshot.servers:
        for slot in other.instance.slots if other.instance else ():
            if slot.name == server.slot and other.name != server.name:
                yield _slot(slot, other)


def _slot(slot: Slot, other: Server) -> str:
    left = "no limit" if slot.safe_wal_bytes is None else f"{size(max(slot.safe_wal_bytes, 0))} left"
    held = "" if slot.active else f", holds back {size(slot.held_back_bytes)}"
    return f"slot {slot.name} on {other.name}: {slot.wal_status or 'reserves nothing'}, {left}{held}"


def _replay(instance: Instance) -> Iterator[str]:
    if not (replay := instance.replay):
        return
    if replay.paused != "not paused":
        yield f"REPLAY {replay.paused.upper()}"
    if replay.delay:
        yield f"replays {duration(replay.delay)} late, as it is set"


def _keys(server: Server, snapshot: Snapshot) -> Iterator[str]:
    """All of them of the server that takes writes; of another one, whether it opens the same."""
    if server.encryption is None:
        if server.encryption_unknown:
            yield "its keys cannot be looked at"
        return
    reference = next((one.encryption for one in snapshot.writers if one.encryption), None)
    if not server.writes and reference and _names(server.encryption) == _names(reference):
        problems = [key.problem for key in server.encryption.keys]
        yield f"same keys: {_verified(next((one for one in problems if one != ''), ''))}"
        return
    scopes: dict[tuple[str, str, str, str], list[str]] = {}
    for key in server.encryption.keys:
        told = key.name, _provider(server.encryption, key.provider), _day(key.since), _verified(key.problem)
        scopes.setdefault(told, []).append(key.scope)
    for (name, provider, since, verified), names in scopes.items():
        yield f"{' and '.join(names)} key {name} of {provider} since {since}: {verified}"


def _names(encryption: Encryption) -> list[tuple[str, str, str]]:
    return [(key.scope, key.name, key.provider) for key in encryption.keys]


def _verified(problem: str | None) -> str:
    return "not verified" if problem is None else "DOES NOT OPEN" if problem else "opens"


def _provider(encryption: Encryption, name: str) -> str:
    found = next((one for one in encryption.providers if one.name == name), None)
    where = f", {found.address}" if found and found.address else ""
    return f"{name} ({found.type}{where})" if found else name


def _day(since: datetime | None) -> str:
    return since.strftime("%Y-%m-%d") if since else "an unknown time"


def _token(server: Server) -> str:
    token = server.token
    if token is None:
        return ""
    if token.gone:
        return "Vault token GONE"
    return "Vault token: not known" if token.problem else f"Vault token: {duration(token.seconds_left)} left"


def _keeping(instance: Instance) -> Iterator[str]:
    """What the server does for its data besides."""
    if not instance.checksums:
        yield "no checksums"
    elif instance.checksum_failures:
        yield f"{instance.checksum_failures} CHECKSUM FAILURES"
    archiver = instance.archiver
    if archiver.mode != "off" and (archiver.archived or archiver.failed):
        yield f"archived {duration(archiver.last_archived_age)} ago, {archiver.failed} failures in all"
    if backup := instance.last_backup:
        yield f"last base backup {duration(backup.age)} ago ({backup.label or 'without a label'})"


def _databases(snapshot: Snapshot) -> Iterator[str]:
    if not_encrypted(snapshot):
        return
    for database in snapshot.databases:
        if database.problem:
            continue  # a finding says so
        yield _row(f"database {database.name}:", *_database(database))
        if database.clear_tables:
            named = ", ".join(f"{table.name} {size(table.bytes)}" for table in database.clear_tables[:TABLES_NAMED])
            more = database.clear_table_count - TABLES_NAMED
            count = database.clear_table_count
            yield f"{GAP}{count} table{'s' if count > 1 else ''} in clear: {named}{f' and {more} more' if more > 0 else ''}"
        if count := database.declared_clear_count:
            yield f"{GAP}{count} table{'s' if count > 1 else ''} in clear, as the stack file declares"
        if count := database.free_sequences:
            yield f"{GAP}{count} sequence{'s' if count > 1 else ''} in clear that no table owns: pg_tde leaves them so"


def _database(database: Database) -> Iterator[str]:
    yield f"{size(database.encrypted_bytes)} encrypted, {size(database.clear_bytes)} in clear"
    if database.unknown_bytes:
        yield f"{size(database.unknown_bytes)} not known, because the tables are locked"
    if database.extension is None:
        yield "no extension pg_tde"
    if database.key:
        yield _own_key(database.key)


def _own_key(key: Key) -> str:
    return f"key {key.name} of {key.provider} since {_day(key.since)}"


def _archive(snapshot: Snapshot) -> Iterator[str]:
    if (stanza := snapshot.stanza) is None:
        return
    last = "no backup"
    if stanza.last:
        ago = duration(age(stanza.last.ended, snapshot.time))
        last = f"last of {stanza.backups} backups {ago} ago ({stanza.last.type}, {size(stanza.last.bytes)}, {stanza.last.label})"
    told = {"there": last, "missing": "MISSING", "of another cluster": "OF ANOTHER CLUSTER", "not known": "not known"}
    clear = "repository in clear" if stanza.in_clear else ""
    yield _row(f"archive: stanza {stanza.name}", told[stanza.state], clear, _drill(stanza.drill, snapshot.time))


def _drill(drill: Drill | None, now: datetime) -> str:
    if drill is None:
        return "no restore drill"
    ago = f"{duration(age(drill.time, now))} ago on {drill.server}"
    return (
        f"restore drill FAILED {ago}" if drill.problem else f"restored {ago}: {drill.tables} tables, {drill.rows} rows"
    )


def _not_protected(snapshot: Snapshot) -> str:
    if not_encrypted(snapshot):
        return f"not protected: all tables and WAL, {NEVER_ENCRYPTED}"
    clear = wal_in_clear(snapshot)
    wal_of = f"WAL of {', '.join(clear)}; " if clear else ""
    return f"not protected: {wal_of}{NEVER_ENCRYPTED} (pg_tde never encrypts these)"


def _dates(snapshot: Snapshot) -> Iterator[str]:
    told = [f"{one.name} {_until(one.when, snapshot.time)}" for one in due(snapshot) if one.when]
    if told:
        yield f"next due: {'; '.join(told)}"


def _until(when: datetime, now: datetime) -> str:
    seconds = (when - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else f"OVERDUE by {duration(-seconds)}"


def _faults(snapshot: Snapshot) -> Iterator[str]:
    for fault, names in faults(snapshot).items():
        yield f"known fault of pg_tde on {', '.join(names)}: {fault}"


def _row(*parts: str) -> str:
    return GAP.join(part for part in parts if part)
