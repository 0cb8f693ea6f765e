"""What has to be done by when, as far as the servers and Vault tell it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from tde_replication.status.backups import Stanza
from tde_replication.status.model import Snapshot
from tde_replication.status.words import duration
from tde_replication.values import length

BACKUP, DRILL = "base backup", "restore drill"


@dataclass(frozen=True)
class Due:
    when: datetime | None
    """None: no date is known."""
    name: str
    """In a word or two, for a line among others."""
    what: str
    how: str


def due(snapshot: Snapshot) -> list[Due]:
    """The first date first, what has none last."""
    latest = datetime.max.replace(tzinfo=snapshot.time.tzinfo)
    return sorted([*_tokens(snapshot), *_keys(snapshot), *_backups(snapshot)], key=lambda one: one.when or latest)


def _tokens(snapshot: Snapshot) -> Iterator[Due]:
    """One for all tokens that end on one day."""
    days: dict[str, list[tuple[datetime, str]]] = {}
    for server in snapshot.servers:
        token = server.token
        if token and token.seconds_left is not None and not token.gone:
            ends = snapshot.time + timedelta(seconds=token.seconds_left)
            days.setdefault(day(ends), []).append((ends, server.name))
    for found in days.values():
        names = ", ".join(name for _, name in found)
        yield Due(
            min(found)[0],
            f"Vault token{'s' if len(found) > 1 else ''} of {names}",
            f"The Vault token of {names} ends" if len(found) == 1 else f"The Vault tokens of {names} end",
            "A server needs its token to open the key when it starts. `make up` and `make drift` renew a token in the second "
            "half of its period, so run one of them on a schedule.",
        )


def _keys(snapshot: Snapshot) -> Iterator[Due]:
    """One for each key, though it has several scopes and every server has it."""
    made, after = snapshot.keys_made, snapshot.rotate_after
    since: dict[str, datetime] = {}
    for server in snapshot.servers:
        for key in server.encryption.keys if server.encryption else ():
            if key.since:
                since[key.name] = min(since.get(key.name, key.since), key.since)
    for name, first in (since | made).items():
        age = duration((snapshot.time - first).total_seconds())
        rotation = f"rotation of key {name}"
        what = f"Rotation of key {name}, in use for {age} (since {day(first)})"
        if not after:
            yield Due(
                None,
                rotation,
                what,
                "The stack file declares no interval for a rotation: your own rules say when it is due. `key.rotateAfter` "
                "declares one, and another name in `key.name` rotates.",
            )
        elif name in made:
            how = f"The stack file says `key.rotateAfter: {after}`: the first `make up` from then on rotates to another key."
            yield Due(made[name] + length(after), rotation, what, how)
        else:
            how = f"The stack file says `key.rotateAfter: {after}`, and Vault did not report how old the key is."
            yield Due(None, rotation, what, how)


def _archived(stanza: Stanza) -> Iterator[Due]:
    """Of pgBackRest."""
    if stanza.last:
        about = f"{stanza.last.type} backup {stanza.last.label} of stanza {stanza.name}"
        told = f"Backup: the newest one ended on {day(stanza.last.ended)} ({about})"
    else:
        told = f"Backup: {'none is' if stanza.state == 'there' else 'not known whether one is'} in stanza {stanza.name}"
    yield Due(None, BACKUP, told, "This project makes no backups. Your own rules say when the next one is due.")
    how = "`make restore-drill` restores the newest backup on one of the servers, reads all tables, and removes it."
    if (drill := stanza.drill) is None:
        yield Due(None, DRILL, "Restore drill: no server knows of one", how)
    else:
        result = (
            f"it failed: {drill.problem}"
            if drill.problem
            else f"{drill.tables} tables with {drill.rows} rows were read"
        )
        yield Due(None, DRILL, f"Restore drill: the last one was on {day(drill.time)} on {drill.server}; {result}", how)


def _backups(snapshot: Snapshot) -> Iterator[Due]:
    if snapshot.stanza:
        yield from _archived(snapshot.stanza)
        return
    told = "This project makes no backups, and a server knows only of those that were made while it was a primary that archives "
    how = f"{told}its WAL. Your own rules say when the next one is due."
    for server in snapshot.servers:
        if server.instance and (backup := server.instance.last_backup):
            ended = day(snapshot.time - timedelta(seconds=backup.age))
            label = backup.label or "without a label"
            yield Due(None, BACKUP, f"Base backup: {server.name} knows of one on {ended} ({label})", how)
    if snapshot.servers and not any(server.instance and server.instance.last_backup for server in snapshot.servers):
        yield Due(None, BACKUP, "Base backup: no server knows of one", how)


def day(when: datetime, *, short: bool = False) -> str:
    return f"{when.day} {when:%b %Y}" if short else f"{when.day} {when:%B %Y}"
