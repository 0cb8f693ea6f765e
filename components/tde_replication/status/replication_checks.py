"""Checks of every server that does not take writes, and of synchronous replication on those that do."""

from collections.abc import Iterator, Mapping

from tde_replication.postgres.synchronous import wanted
from tde_replication.status.finding import Finding, Level
from tde_replication.status.model import Instance, Server, Slot, Snapshot
from tde_replication.status.topology import Link
from tde_replication.status.words import duration, size

LAG_SECONDS = 60.0
"""A standby that is further behind is degraded; a delay that is declared does not count."""
BY_SLOT_STATUS = {
    "lost": "its WAL is gone, so that the standby cannot follow any more: `make up` clones it again",
    "unreserved": "its WAL goes with the next checkpoint: have the standby stream again before that",
}


def replication_findings(snapshot: Snapshot, known: Mapping[str, Link]) -> Iterator[Finding]:
    for server in snapshot.servers:
        link = known.get(server.name)
        if server.instance and server.writes:
            yield from _synchronous(server, server.instance)
        elif server.instance:
            yield from _standby(server, server.instance, link, snapshot)
        yield from _own_slot(server, snapshot, link)


def _standby(server: Server, instance: Instance, link: Link | None, snapshot: Snapshot) -> Iterator[Finding]:
    if link:
        yield from _stream(server, instance, link)
    elif (receiver := instance.receiver) and receiver.status == "streaming":
        if not any(one.state == "unknown" for one in snapshot.servers):
            yield _degraded(
                server,
                "upstream",
                f"it streams from {receiver.host}:{receiver.port}, which is no server of the stack file that streams to it: look "
                "at its primary_conninfo",
            )
    else:
        yield _degraded(server, "not streaming", f"it is in recovery and receives nothing{_why(server, snapshot)}")
    if instance.replay and instance.replay.paused != "not paused":
        yield _degraded(
            server,
            "replay paused",
            "replay is paused, so that it falls behind and its WAL stays on its disk: SELECT pg_wal_replay_resume()",
        )


def _why(server: Server, snapshot: Snapshot) -> str:
    """Why it receives nothing, as far as that is known without its log."""
    name = server.declared_upstream
    state = snapshot.named(name).state if name else "running"
    if state == "running":
        return ": its log says why (password, pg_hba.conf, slot or network)"
    if state == "unknown":
        return f", and {name}, which it is to stream from, cannot be asked"
    return f", because {name} {'is not there' if state == 'absent' else f'is {state}'}"


def _stream(server: Server, instance: Instance, link: Link) -> Iterator[Finding]:
    sender, upstream = link.sender, link.upstream
    if sender.state != "streaming":
        behind = size(sender.replay.bytes)
        yield _degraded(server, "catching up", f"{sender.state}: it is {behind} behind {upstream.name}")
    if sender.slot is None:
        yield _degraded(
            server,
            "no slot",
            f"it streams from {upstream.name} without a slot, so that WAL that it needs may be removed there: `make up` gives it "
            "its slot",
        )
    delay = instance.replay.delay if instance.replay else 0.0
    late = sender.replay.seconds or 0.0
    if late > LAG_SECONDS + delay:
        yield _degraded(
            server,
            "lag",
            f"it replays {duration(late)} and {size(sender.replay.bytes)} behind {upstream.name}: look at its disk, at the "
            "network and for long queries on it",
        )
    if upstream.instance and upstream.instance.timeline != instance.timeline:
        yield _degraded(
            server,
            "timeline",
            f"it is on timeline {instance.timeline}, {upstream.name} on {upstream.instance.timeline}",
        )


def _own_slot(server: Server, snapshot: Snapshot, link: Link | None) -> Iterator[Finding]:
    """Of every server, also of one that is down, on each server that has a slot for it."""
    found = [
        (other, slot)
        for other in snapshot.servers
        for slot in (other.instance.slots if other.instance else ())
        if slot.name == server.slot and other.name != server.name and not slot.synced
    ]
    for other, slot in found:
        yield from _slot(server, other, slot, link)
    if not found and not link and not server.writes and snapshot.writers and server.state != "unknown":
        yield _degraded(
            server,
            "slot",
            f"slot {server.slot} is on no server, so that WAL that it needs may be removed: `make up` makes it, or clones the "
            "standby again",
        )


def _slot(server: Server, other: Server, slot: Slot, link: Link | None) -> Iterator[Finding]:
    if slot.wal_status in BY_SLOT_STATUS:
        reason = f" ({slot.invalidation_reason})" if slot.invalidation_reason else ""
        yield _degraded(
            server,
            "slot",
            f"slot {slot.name} on {other.name} is {slot.wal_status}{reason}: {BY_SLOT_STATUS[slot.wal_status]}",
        )
    elif not slot.active and (server.writes or link):
        why = "takes writes" if server.writes else "streams from elsewhere"
        yield _degraded(
            other,
            "unused slot",
            f"slot {slot.name} holds back {size(slot.held_back_bytes)} of WAL for {server.name}, which {why}: drop it",
        )


def _synchronous(server: Server, instance: Instance) -> Iterator[Finding]:
    names = instance.synchronous_standby_names.strip()
    number = wanted(names)
    there = sum(sender.state == "streaming" and sender.sync_state in {"sync", "quorum"} for sender in instance.senders)
    if there < number:
        yield Finding(
            Level.BROKEN,
            "synchronous",
            server.name,
            f"commits wait for {number} synchronous standby{'s' if number > 1 else ''}, and {there or 'none'} streams: bring "
            f"them back, or change synchronous_standby_names ({names})",
        )


def _degraded(server: Server, check: str, text: str) -> Finding:
    return Finding(Level.DEGRADED, check, server.name, text)
