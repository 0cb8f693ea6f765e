"""What keeps standbys from being cloned, and what clones do not take over: looked up on the running primary before anything is
made."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from components import hosts, settings
from components.errors import Problem
from components.hosts.site import Site
from components.postgres.guc import switch
from components.postgres.inheritance import TLS_FILES, configuration, hindrances, inherited, left_out, tablespaces
from components.postgres.session import server_session
from components.side_by_side import side_by_side

Place = tuple[str, settings.Server, Site]
"""A key of the stack file ("cluster.standbys[0]"), and what is declared there."""


def clones(primary: Place, standbys: Sequence[Place]) -> tuple[list[str], list[str]]:
    """Mistakes, and what a person should know. Nothing of a primary that does not answer now."""
    new = [standby for standby, is_new in zip(standbys, side_by_side(_is_new, standbys), strict=True) if is_new]
    beside = [standby for standby in standbys if standby[1].machine == primary[1].machine]
    if not new and not beside:
        return [], []
    key, server, site = primary
    try:
        with server_session(hosts.host(site.address), site.data, f"{key} {server.name}") as session:
            outside = tablespaces(session)
            hindering = hindrances(session) if new else []
            found = configuration(session) if new else {}
    except Problem:
        return [], []
    mistakes = [f"{key}: {one}" for one in hindering]
    notices = []
    for standby in standbys:
        mistakes += _of_tablespaces(outside, primary, standby, is_new=standby in new)
    for standby in new:
        mistakes += _of_tls(server, found, standby)
        if left := left_out({**found, **server.settings}):
            notices.append(f"{standby[1].name} will not take over from {server.name}: {left}")
    return mistakes, notices


def _is_new(standby: Place) -> bool:
    _, _, site = standby
    try:
        return not hosts.host(site.address).listing(site.data)
    except Problem:
        return False


def _of_tablespaces(outside: Mapping[str, str], primary: Place, standby: Place, *, is_new: bool) -> list[str]:
    (_, origin, there), (key, server, site) = primary, standby
    if not outside:
        return []
    host = hosts.host(site.address)
    named = ", ".join(f"{name} in {directory}" for name, directory in outside.items())
    beside = (
        f"{key}.host: {origin.name} has tablespaces outside of its data directory ({named}), and a standby on the same machine "
        f"would write into the same directories. Put {server.name} on another machine, or move what is in the tablespaces to "
        "pg_default and drop them"
    )
    try:
        if host.is_same_place(hosts.host(there.address)):
            return [beside]
        return [
            f"{key}: tablespace {name} of {origin.name} is cloned to {directory}, which is not empty on {server.machine}: what "
            "is there is never written over. Find out whose files these are, and move them to another place"
            for name, directory in outside.items()
            if is_new and host.listing(PurePosixPath(directory))
        ]
    except Problem:
        return []


def _of_tls(primary: settings.Server, found: Mapping[str, str], standby: Place) -> list[str]:
    """Certificates and keys that the clone would be started with, and that are not on its machine."""
    key, server, site = standby
    wanted = {**inherited({**found, **primary.settings}), **server.settings}
    if switch(wanted.get("ssl", "off")) != "on":
        return []
    host = hosts.host(site.address)
    try:
        if host.status(site.binaries) is None:
            return []  # its packages, which `up` installs, may bring them
        return [
            f"{key}.settings.{name}: {server.name} would be started with {wanted[name]}, as {primary.name} is, and its machine "
            "has no such file: put one there, or name another, or set ssl: off"
            for name in TLS_FILES
            if wanted.get(name, "").startswith("/") and host.status(PurePosixPath(wanted[name])) is None
        ]
    except Problem:
        return []
