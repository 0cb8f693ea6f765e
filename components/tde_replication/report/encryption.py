"""The sections on encryption: what it protects, and by which keys."""

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from tde_replication.report.layout import Cell, section, table
from tde_replication.report.markup import Child, tag
from tde_replication.report.picture import icon, lock
from tde_replication.report.protection import Protection, rows
from tde_replication.status.due import day
from tde_replication.status.encryption_checks import not_encrypted
from tde_replication.status.finding import Level
from tde_replication.status.model import Database, Key, Server, Snapshot, Token
from tde_replication.status.words import duration, size

BAR = 120
"""Length of a bar in its own units."""


def protected(snapshot: Snapshot) -> Element:
    found = [(one.what, _protection(one.protection), one.text) for one in rows(snapshot)]
    parts: list[Child] = [
        tag("p", "Encryption of files protects against whoever takes a disk or copies its files. It does not protect against "
            "whoever may log in to the database, or to the machine while the server runs."),
        table("What is protected", ("On the servers' disks", "Protection", "What that means"), found),
    ]  # fmt: skip
    if snapshot.databases and not not_encrypted(snapshot):
        names = ("Database", "Encrypted", "In clear", "Catalogs", "Share")
        parts.append(table("Databases", names, [_database(one) for one in snapshot.databases]))
    return section("What is protected, and what is not", *parts)


def _protection(found: Protection) -> Sequence[Child]:
    sign = Level.UNKNOWN if found is Protection.UNKNOWN else lock(is_open=found is not Protection.ENCRYPTED)
    return [icon(sign), tag("span", found.value)]


def _database(found: Database) -> tuple[Cell, ...]:
    if found.problem:
        return found.name, "not known", "not known", "not known", found.problem
    whole = found.encrypted_bytes + found.clear_bytes + found.unknown_bytes
    share = found.encrypted_bytes / whole if whole else 0.0
    bar = tag(
        "svg",
        tag("rect", width=BAR, height=8, rx=4, class_="bar"),
        tag("rect", width=round(BAR * share, 1), height=8, rx=4, class_="part") if share else None,
        viewBox=f"0 0 {BAR} 8",
        width=BAR,
        height=8,
        class_="share",
        aria_hidden="true",
    )
    told = f"{100 * share:.1f} %" if whole else "no tables"
    sizes = [size(number) for number in (found.encrypted_bytes, found.clear_bytes, found.catalog_bytes)]
    return found.name, *sizes, [bar, tag("span", told)]


def keys(snapshot: Snapshot) -> Element | None:
    providers = [one for server in snapshot.servers if server.encryption for one in server.encryption.providers]
    found = [row for server in snapshot.servers for row in _keys_of(server)]
    if not found:
        return None
    where = next((f" {one.address} (mount {one.mount})" for one in providers if one.address), "")
    words = (
        f"The key lies in Vault{where}, never on the servers' disks. Each server fetches it by a token of its own; without "
        "Vault, a server that stops cannot start again."
    )
    names = ("Server", "Key", "Used for", "Set on", "Opened just now", "Vault token")
    return section("Keys", tag("p", words), table("Keys", names, found))


def _keys_of(server: Server) -> Iterator[Sequence[Cell]]:
    """One row for each key, though it may be set for several scopes."""
    scopes: dict[tuple[str, str, str | None, bool], list[str]] = {}
    for key in server.encryption.keys if server.encryption else ():
        since = day(key.since) if key.since else "not known"
        scopes.setdefault((key.name, since, key.problem, key.lost), []).append(_scope(key))
    for (name, since, problem, lost), used in scopes.items():
        yield server.name, name, ", ".join(used), since, _opens(problem, lost=lost), _token(server.token)


def _scope(key: Key) -> str:
    return {"server": "WAL", "default": "all databases"}.get(key.scope, f"database {key.scope}")


def _opens(problem: str | None, *, lost: bool) -> Sequence[Child]:
    if problem is None:
        return [icon(Level.UNKNOWN), tag("span", "not tried")]
    if problem:
        return [icon(Level.BROKEN), tag("span", "lost" if lost else "no")]
    return [icon(Level.WELL), tag("span", "yes")]


def _token(token: Token | None) -> str:
    if token is None or token.problem:
        return "not known"
    return "gone" if token.gone else f"{duration(token.seconds_left)} left"
