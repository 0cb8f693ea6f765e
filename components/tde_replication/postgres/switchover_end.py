"""What a switchover leaves behind, and how it is taken away: whether it has come to its end, or somebody goes back."""

from collections.abc import Iterable, Sequence

from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.topology_server import DEMOTED, NOTE, PROMOTING, SIGNAL, TopologyServer

STOP_DEADLINE = 120.0
"""Seconds for a fast stop: a primary waits for its standbys to receive everything."""


def end(server: TopologyServer, servers: Sequence[TopologyServer], primary: str) -> None:
    """Another server is the primary: take away what the switchover from `server` has left on it."""
    drop_slots(server, server.strays(servers, primary))
    server.machine.remove(server.data / NOTE)


def against_going_back(server: TopologyServer, servers: Sequence[TopologyServer]) -> str | None:
    """Why `server`, from which a switchover was begun, must not take writes again."""
    for other in servers:
        match other.standing():
            case _ if other == server:
                continue
            case "primary":
                why = "is the primary now"
            case "silent":
                why = "does not say whether it was promoted"
            case "down":  # a standby that was only stopped has its signal file
                why = "does not run, and would start as a primary"
            case _:
                continue
        return (
            f"a switchover from {server.name} was interrupted, and {other.name} {why}: nothing is changed. Write primary: "
            f"{other.name}, or make it answer; where it is gone for good, take it out of servers"
        )
    return None


def go_back(server: TopologyServer, servers: Sequence[TopologyServer]) -> str | None:
    """Let the former primary be one again; its `Server` starts it. Why not, where another one has been promoted by now."""
    for other in servers:
        if other != server and other.is_promoting:
            # A promotion that was asked for ends with the server that was to make it.
            other.machine.stop(other.bin, other.data, deadline=STOP_DEADLINE)
            if other.standing() != "demoted" or other.control().left_recovery:
                return (
                    f"a switchover from {server.name} was interrupted, and {other.name} has been promoted: write primary: "
                    f"{other.name}"
                )
            for name in ("promote", PROMOTING):
                other.machine.remove(other.data / name)
    if server.standing() == "standby":  # somebody has started it since
        server.machine.stop(server.bin, server.data, deadline=STOP_DEADLINE)
    for name in (SIGNAL, DEMOTED, NOTE):
        server.machine.remove(server.data / name)
    return None


def drop_slots(server: TopologyServer, slots: Iterable[str], *, idle: bool = False) -> None:
    """Drop these on a server that would hold WAL for them for ever; who still streams from one is cut off, unless only those are
    meant that are `idle`: then also on the primary."""
    names = sorted(slots)
    match server.standing():
        case "standby" | "primary" as standing if idle or standing == "standby":
            for name in names:
                slot = ReplicationSlot(**inside(server), slot=name)
                if not idle or slot.is_free:
                    slot.delete()
        case "down" | "demoted":
            for name in names:
                server.machine.remove(server.data / "pg_replslot" / name)
            # Without the directory itself, which goes with the last of them on some hosts, it could not start.
            server.machine.make_directory(server.data / "pg_replslot")
        case _:
            pass


def inside(server: TopologyServer) -> dict[str, str]:
    """What a resource inside this server is declared with."""
    identifier = server.control().system_identifier
    return {"host": server.host, "data_directory": server.data_directory, "system_identifier": identifier}
