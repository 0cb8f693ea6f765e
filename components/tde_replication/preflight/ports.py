"""Ports and listen addresses: who has a port already, and whether standbys would find the primary where the stack file says."""

from pathlib import PurePosixPath

from tde_replication import hosts, settings
from tde_replication.errors import UserError
from tde_replication.hosts.listeners import holder, listener, same_directory
from tde_replication.hosts.placement import Placement
from tde_replication.postgres.guc import elements
from tde_replication.postgres.marker import marker, of_another_stack
from tde_replication.postgres.session import server_session
from tde_replication.topology_contradictions import unreached
from tde_replication.unasked import could_not_ask


def taken(server: settings.Server, placement: Placement, stack: str, *, is_primary: bool) -> list[str]:
    """Whether something else listens where `server` is to; of a server that was adopted or is in a container, nothing."""
    if server.adopt or placement.in_container:
        return []
    host = hosts.host(placement.address)
    running = host.postmaster(placement.data)
    if running and (running.lost or running.port == placement.port):
        return []
    found = listener(host, server.listens, placement.port)
    if not found:
        return []
    who = holder(host, found)
    if same_directory(who, placement.data):
        return []
    made = marker(host, PurePosixPath(who.directory)) if who.directory else {}
    maker = str(made.get("stack", ""))
    what = "stop that, or name another port"
    if maker == stack and made.get("name") == server.name:
        # A standby that moves elsewhere goes before the new one starts; so does one whose directory was removed under it.
        if not is_primary:
            return []
        what = (
            f"which is {server.name} of a stack with the same name: another checkout's (destroy that, or name another port), or "
            "this stack's before dataDirectory was changed (set that back: its new place would be an empty cluster)"
        )
    elif maker != stack and (former := of_another_stack(maker, stack)):
        what = f"which {former}"
    joint = "," if what.startswith("which") else ":"
    return [f"{server.place}.port: {placement.port} is in use on {found.address}, by {who}{joint} {what}"]


def of_adopted(cluster: settings.Cluster, server: settings.Server, placement: Placement) -> list[str]:
    """Where an adopted server listens is its own affair, and standbys must find it there."""
    if not server.adopt:
        return []
    host = hosts.host(placement.address)
    try:
        running = host.postmaster(placement.data)
        if not running or running.lost:
            return []
        with server_session(host, placement.data, f"{server.place}.adopt") as session:
            listen = str(session.value("SHOW listen_addresses"))
    except UserError as unknown:
        could_not_ask("where the server that is to be adopted listens", unknown)
        return []
    found = []
    if running.port != placement.port:
        found.append(
            f"{server.place}.port: the server on {placement.data} listens on {running.port}, and the stack file says "
            f"{placement.port}"
        )
    names = [name for name in elements(listen) if name]
    if why := unreached(cluster, server, names):
        found.append(
            f"{server.place}.adopt: the server's listen_addresses: {why}: set them by ALTER SYSTEM, and restart it"
        )
    elif server.kind == "local" and cluster.standbys and not listener(host, [placement.replication_host], running.port):
        found.append(
            f"{server.place}.listen: the server on {placement.data} listens on {listen}, and standbys would look for it on "
            f"{placement.replication_host}: name here where it listens"
        )
    return found
