"""The key files of data directories on the servers' machines, and of backups on this one."""

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tde_replication import hosts
from tde_replication.errors import CommandFailed, UserError, escaped
from tde_replication.hosts.base import Host
from tde_replication.needed_keys.model import Data, NeededKey, Use
from tde_replication.postgres import key_files
from tde_replication.postgres.data_directory import SET_ASIDE
from tde_replication.status.declared import DeclaredServer

UNREADABLE = b"?"


def of_server(server: DeclaredServer) -> list[Data]:
    """Its data directory, and what was set aside beside it."""
    if server.placement is None:
        return [Data(server=server.name, path="", use="in use", problem=server.problem)]
    data = server.placement.data
    try:
        host = hosts.host(server.placement.address)
        beside = host.listing(data.parent)
        asides = [data.with_name(name) for name in beside if name.startswith(f"{data.name}{SET_ASIDE}")]
        absent = Data(server=server.name, path=str(data), use="in use", problem="there is no data directory")
        return [
            _directory(host, data, server.name, "in use") if data.name in beside else absent,
            *(_directory(host, aside, server.name, "set aside") for aside in asides),
        ]
    except UserError as why:
        return [Data(server=server.name, path=str(data), use="in use", problem=str(why))]


def _directory(host: Host, data: PurePosixPath, server: str, use: Use) -> Data:
    place = data / key_files.DIRECTORY
    names = [name for name in host.listing(place) if key_files.NAME.fullmatch(name)]
    reads = {name: _head(place / name) for name in names}
    host.look(outputs=reads.values())
    contents = {}
    for name, command in reads.items():
        try:
            contents[name] = bytes.fromhex(host.output(command))
        except (CommandFailed, ValueError):
            contents[name] = UNREADABLE
    return Data(server=server, path=str(data), use=use, **_parsed(contents))


def _head(path: PurePosixPath) -> list[str]:
    return ["od", "-A", "n", "-v", "-t", "x1", "-N", str(key_files.HEADER_BYTES), str(path)]


def of_backup(path: Path) -> Data:
    """A data directory, or an archive that `pg_basebackup -Ft` has written."""
    try:
        contents = dict(_of_directory(path) if path.is_dir() else _of_archive(path))
    except (OSError, EOFError, tarfile.TarError) as why:
        return Data(path=str(path), use="given", problem=f"it cannot be read: {escaped(str(why))}")
    found = _parsed(contents)
    if not (contents or (path.is_dir() and (path / "PG_VERSION").exists())):
        found["problem"] = "it is neither a data directory nor an archive of one that pg_tde was used in"
    return Data(path=str(path), use="given", **found)


def _of_directory(path: Path) -> Iterator[tuple[str, bytes]]:
    for one in sorted((path / key_files.DIRECTORY).glob("*_keys")):
        with one.open("rb") as file:
            yield one.name, file.read(key_files.HEADER_BYTES)


def _of_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            at = PurePosixPath(member.name)
            if at.parent.name == key_files.DIRECTORY and key_files.NAME.fullmatch(at.name):
                file = archive.extractfile(member)
                yield at.name, file.read(key_files.HEADER_BYTES) if file else UNREADABLE


def _parsed(contents: Mapping[str, bytes]) -> dict[str, Any]:
    keys, problems = [], []
    for name, content in contents.items():
        try:
            found = key_files.parse(name, content)
        except UserError as why:
            problems.append(str(why))
            continue
        if found:
            scope = "server" if found.database is None else "default" if found.is_default else "database"
            keys.append(
                NeededKey(
                    scope=scope,
                    database_oid=found.database if scope == "database" else None,
                    name=found.key,
                    provider=str(found.provider),
                    since=found.since,
                    vault="unknown",
                )
            )
    order = ("server", "default", "database")
    keys.sort(key=lambda key: (order.index(key.scope), key.database_oid or 0))
    return {"keys": tuple(keys), "problem": "; ".join(problems)}
