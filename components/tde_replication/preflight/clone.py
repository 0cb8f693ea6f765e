"""What keeps standbys from being cloned, and what clones do not take over: looked up on the running primary before anything is
made."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from tde_replication import hosts, settings
from tde_replication.errors import UserError
from tde_replication.hosts.placement import Placement
from tde_replication.parallel import parallel_map
from tde_replication.postgres.inheritance import configuration, hindrances, left_out, sentence, tablespaces
from tde_replication.postgres.session import server_session
from tde_replication.unasked import could_not_ask

Place = tuple[str, settings.Server, Placement]
"""A key of the stack file ("cluster.servers.db2"), and what is declared there."""


def check_clones(primary: Place, standbys: Sequence[Place], *, archived: bool = False) -> tuple[list[str], list[str]]:
    """Mistakes, and what a person should know. Nothing of a primary that does not answer now."""
    new = [standby for standby, is_new in zip(standbys, parallel_map(_is_new, standbys), strict=True) if is_new]
    beside = [standby for standby in standbys if standby[1].machine == primary[1].machine]
    if not new and not beside:
        return [], []
    key, server, placement = primary
    try:
        with server_session(hosts.host(placement.address), placement.data, f"{key} {server.name}") as session:
            outside = tablespaces(session)
            hindering = hindrances(session) if new else []
            found = configuration(session) if new else {}
    except UserError as why:
        if not _is_new(primary):
            could_not_ask(f"whether standbys can be cloned from {server.name}", why)
        return [], []
    mistakes = [f"{key}: {one}" for one in hindering]
    for standby in standbys:
        mistakes += _of_tablespaces(outside, primary, standby, is_new=standby in new)
    told = [(one[1].name, _not_taken_over({**found, **server.settings}, one, archived=archived)) for one in new]
    return mistakes, [f"{name} will not take over from {server.name}: {left}" for name, left in told if left]


def _is_new(standby: Place) -> bool:
    _, _, placement = standby
    try:
        return not hosts.host(placement.address).listing(placement.data)
    except UserError as why:
        could_not_ask(f"whether {standby[1].name} is there already", why)
        return False


def _of_tablespaces(outside: Mapping[str, str], primary: Place, standby: Place, *, is_new: bool) -> list[str]:
    (_, origin, there), (key, server, placement) = primary, standby
    if not outside:
        return []
    host = hosts.host(placement.address)
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
    except UserError as why:
        could_not_ask(f"where {server.name} would have the tablespaces of {origin.name}", why)
        return []


def _not_taken_over(found: Mapping[str, str], standby: Place, *, archived: bool) -> str:
    """As a sentence; without what the standby declares itself."""
    _, server, placement = standby
    host = hosts.host(placement.address)
    try:
        left = left_out(found, lambda path: host.status(path) is not None, archived=archived)
    except UserError as why:
        could_not_ask(f"what {server.name} will not take over", why)
        return ""
    return sentence({name: reason for name, reason in left.items() if name not in server.settings})
