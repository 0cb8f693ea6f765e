"""Checks of encryption: keys, what a server would do with them at its next start, and the tokens that open them."""

from collections.abc import Iterator

from tde_replication.status.finding import Finding, Level
from tde_replication.status.model import Database, Key, OnDisk, Server, Snapshot, Token
from tde_replication.status.words import duration
from tde_replication.values import length

TABLES_NAMED = 5
SHARE_LEFT = 4
"""A token with less than this part of its period left was not renewed in time: an `up` or `make drift` renews one in the
second half."""


def encryption_findings(snapshot: Snapshot) -> Iterator[Finding]:
    encrypting = any(server.instance and server.instance.tde_loaded for server in snapshot.servers)
    if snapshot.encryption == "off" and not encrypting:
        return
    for server in snapshot.servers:
        if server.instance is None:
            continue
        yield from _loaded(server, snapshot)
        if server.encryption:
            for key in server.encryption.keys:
                yield from _key(server, key)
            yield from _wal(server, snapshot)
            if server.on_disk and not server.encryption.stand_in:
                yield from _on_disk(server, server.on_disk)
            yield from _token(server)
    yield from _rotation(snapshot)
    for database in snapshot.databases if encrypting else ():
        if database.problem:
            yield Finding(
                Level.UNKNOWN, "database", "", f"what of database {database.name} is encrypted: {database.problem}"
            )
        elif database.name in snapshot.enforced:
            yield from _in_clear(database)


def not_encrypted(snapshot: Snapshot) -> str | None:
    """Why the cluster is not encrypted, as the server that takes writes has it, else any. None where it is, or nobody can
    tell: see `is_encrypted`."""
    found = _telling(snapshot)
    if found and found.encryption and found.encryption.stand_in:
        return "a stand-in for pg_tde is loaded, which is for tests and encrypts nothing"
    if not found or found.encryption_unknown or not found.encryption_problem:
        return None
    return "the stack file says encryption: off" if snapshot.encryption == "off" else found.encryption_problem


def is_encrypted(snapshot: Snapshot) -> bool | None:
    """None where nobody can tell."""
    found = _telling(snapshot)
    if not_encrypted(snapshot):
        return False
    return True if found and not found.encryption_unknown else None


def _telling(snapshot: Snapshot) -> Server | None:
    """The server that takes writes, else any that answers."""
    answering = [server for server in snapshot.servers if server.instance]
    return min(answering, key=lambda server: not server.writes, default=None)


def _loaded(server: Server, snapshot: Snapshot) -> Iterator[Finding]:
    if server.encryption_unknown:
        yield Finding(
            Level.UNKNOWN, "encryption", server.name, f"its keys cannot be looked at: {server.encryption_problem}"
        )
        return
    if not server.encryption_problem:
        return
    elsewhere = [one.name for one in snapshot.servers if one.encryption and one.encryption.keys]
    if not server.writes and elsewhere and server.instance and not server.instance.tde_loaded:
        yield Finding(
            Level.BROKEN,
            "pg_tde not loaded",
            server.name,
            "it runs without pg_tde and replays in clear what is encrypted on "
            f"{elsewhere[0]}; its files are not usable: stop it, and have `make up` clone it again",
        )
    elif server.writes and snapshot.encryption == "required":
        yield Finding(
            Level.BROKEN,
            "not encrypted",
            server.name,
            f"the stack file says encryption: required, and nothing is encrypted: {server.encryption_problem}",
        )


def _key(server: Server, key: Key) -> Iterator[Finding]:
    if key.lost:
        yield Finding(
            Level.BROKEN,
            "key lost",
            server.name,
            f"{key.scope} key {key.name} is lost: {key.problem} What it encrypts can be read until the server stops, and not "
            "after: restore the key in Vault, or copy the data out now",
        )
    elif key.problem:
        yield Finding(
            Level.DEGRADED,
            "key",
            server.name,
            f"it cannot open its {key.scope} key {key.name} now, so that it would not start again: {key.problem}",
        )


def _rotation(snapshot: Snapshot) -> Iterator[Finding]:
    if not snapshot.rotate_after:
        return
    for name, made in snapshot.keys_made.items():
        if made + length(snapshot.rotate_after) <= snapshot.time:
            yield Finding(
                Level.DEGRADED,
                "key rotation",
                "",
                f"key {name} is {duration((snapshot.time - made).total_seconds())} old, and the stack file says key.rotateAfter: "
                f"{snapshot.rotate_after}: `make up` rotates to another one",
            )


def _wal(server: Server, snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.wal_encryption and server.instance and not server.instance.wal_encrypted:
        yield Finding(
            Level.DEGRADED,
            "wal in clear",
            server.name,
            "the stack file says walEncryption: true, and its WAL is in clear: `make up` turns it on",
        )


def _on_disk(server: Server, found: OnDisk) -> Iterator[Finding]:
    if found.problem:
        yield Finding(
            Level.UNKNOWN,
            "on disk",
            server.name,
            f"whether its files are encrypted could not be looked at: {found.problem}",
        )
    if found.in_clear:
        yield Finding(
            Level.BROKEN,
            "on disk",
            server.name,
            f"pg_tde says that {', '.join(found.in_clear)} is encrypted, and pages of its file are in clear on its disk: "
            "where it is a standby, it may have run without pg_tde: stop it, and have it cloned again",
        )
    if found.wal == "in clear":
        yield Finding(
            Level.DEGRADED,
            "on disk",
            server.name,
            "pg_tde.wal_encrypt is on, and the newest page of its WAL is in clear on its disk (after the restart that turned it "
            "on, until more is written)",
        )


def _in_clear(database: Database) -> Iterator[Finding]:
    """Where none should be."""
    if count := database.clear_table_count:
        named = ", ".join(table.name for table in database.clear_tables[:TABLES_NAMED])
        yield Finding(
            Level.DEGRADED,
            "table in clear",
            "",
            f"the stack file says enforceEncryption: true, and database {database.name} has {count} "
            f"table{'s' if count > 1 else ''} in clear: {named}{', …' if count > TABLES_NAMED else ''}. `make up` encrypts "
            "only what `tables` declares",
            "docs/encryption.md",
        )


def _token(server: Server) -> Iterator[Finding]:
    token = server.token or Token(problem="it was not asked for")
    if token.gone:
        yield Finding(
            Level.DEGRADED,
            "token",
            server.name,
            "its Vault token was revoked or has expired, so that it would not start again: `make up` makes another one",
        )
    elif token.problem:
        yield Finding(
            Level.UNKNOWN, "token", server.name, f"the time left of its Vault token is not known: {token.problem}"
        )
    elif token.seconds_left is not None and token.period and token.seconds_left * SHARE_LEFT < token.period:
        yield Finding(
            Level.DEGRADED,
            "token",
            server.name,
            f"its Vault token ends in {duration(token.seconds_left)}: `make up`, or `make drift`, renews it",
        )
