"""Who streams from whom, as the servers have it themselves."""

from dataclasses import dataclass

from tde_replication.status.model import Sender, Server, Snapshot


@dataclass(frozen=True)
class Link:
    """A standby's stream."""

    upstream: Server
    sender: Sender


def links(snapshot: Snapshot) -> dict[str, Link]:
    """By the name of each standby that streams from a server of this stack."""
    return {server.name: link for server in snapshot.servers if (link := _link(server, snapshot))}


def _link(server: Server, snapshot: Snapshot) -> Link | None:
    receiver = server.instance.receiver if server.instance else None
    if receiver is None:
        return None
    found = [
        Link(other, sender)
        for other in snapshot.servers
        if other.instance and other.name != server.name
        for sender in other.instance.senders
        if sender.state != "backup"
        and sender.slot == receiver.slot
        and (sender.slot is not None or sender.application_name == server.name)
    ]
    # Slots of one name may be in use on two servers; then the port tells them apart.
    found.sort(key=lambda link: not link.upstream.address.endswith(f":{receiver.port}"))
    return found[0] if found else None


def others(server: Server, known: dict[str, Link]) -> list[Sender]:
    """Who else streams from a server: a base backup, a standby that is not in the stack file."""
    if server.instance is None:
        return []
    known_senders = [link.sender for link in known.values() if link.upstream.name == server.name]
    return [sender for sender in server.instance.senders if sender not in known_senders]


def tree(snapshot: Snapshot, known: dict[str, Link]) -> list[tuple[int, bool, Server]]:
    """Depth, whether it is the last on its branch, and server: those that take writes first, each with what streams from it,
    then those that stream from none of these."""
    found: list[tuple[int, bool, Server]] = []

    def add(server: Server, depth: int, *, last: bool) -> None:
        if any(server is one for _, _, one in found):
            return  # a circle
        found.append((depth, last, server))
        below = [one for one in snapshot.servers if one.name in known and known[one.name].upstream.name == server.name]
        for one in below:
            add(one, depth + 1, last=one is below[-1])

    roots = sorted((one for one in snapshot.servers if one.name not in known), key=lambda one: not one.writes)
    for root in [*roots, *snapshot.servers]:
        add(root, 0, last=True)
    return found
