"""Judges a cluster. Roles are those that are found, never those that are declared."""

from collections import Counter
from collections.abc import Iterator

from tde_replication.status.archive_checks import archive_findings
from tde_replication.status.encryption_checks import encryption_findings
from tde_replication.status.finding import Finding, Level, Verdict
from tde_replication.status.model import Server, Snapshot
from tde_replication.status.replication_checks import replication_findings
from tde_replication.status.topology import links
from tde_replication.status.words import size

DOWN = {"down", "absent", "not accepting connections"}


def judge(snapshot: Snapshot) -> Verdict:
    known = links(snapshot)
    return Verdict.of(
        [
            *_writers(snapshot),
            *(finding for server in snapshot.servers for finding in _server(server, snapshot)),
            *replication_findings(snapshot, known),
            *encryption_findings(snapshot),
            *archive_findings(snapshot),
        ]
    )


def _writers(snapshot: Snapshot) -> Iterator[Finding]:
    writers = [server.name for server in snapshot.writers]
    silent = [server.name for server in snapshot.servers if server.state == "unknown"]
    if len(writers) > 1:
        yield Finding(
            Level.BROKEN,
            "two primaries",
            "",
            f"{' and '.join(writers)} both take writes, so that their data differ from now on: stop the one that applications "
            "should not use, at once",
            "docs/topology.md",
        )
    elif all(server.state == "absent" for server in snapshot.servers):
        yield Finding(Level.BROKEN, "no primary", "", "none of its servers is there: `make up` makes them")
    elif not writers and silent:
        yield Finding(
            Level.UNKNOWN,
            "no primary",
            "",
            f"{' and '.join(silent)} cannot be asked, and no other server takes writes: find out about the former primary before "
            "anything is promoted, or there may be two",
        )
    elif not writers:
        yield Finding(
            Level.BROKEN,
            "no primary",
            "",
            "no server takes writes: start the former primary, or promote a standby",
            "docs/topology.md",
        )
    elif writers != [snapshot.primary]:
        yield Finding(
            Level.DEGRADED,
            "another primary",
            writers[0],
            f"it takes writes, and the stack file names {snapshot.primary} as the primary: name {writers[0]} there to go on with "
            "it, or make the other one the primary again",
            "docs/topology.md",
        )


def _server(server: Server, snapshot: Snapshot) -> Iterator[Finding]:
    if server.state == "unknown":
        yield Finding(Level.UNKNOWN, "server", server.name, f"it cannot be asked: {server.problem}")
    elif server.state in DOWN:
        yield Finding(Level.DEGRADED, "server", server.name, f"{server.state}: {server.problem}; `make up` starts it")
    if (instance := server.instance) is None:
        return
    expected = _identifier(snapshot)
    if instance.system_identifier != expected:
        yield Finding(
            Level.DEGRADED,
            "another cluster",
            server.name,
            f"its data are another cluster's (system identifier {instance.system_identifier}, and not {expected}): look what "
            "was put in its place",
        )
    if server.replaced:
        yield Finding(
            Level.DEGRADED,
            "replaced programs",
            server.name,
            f"{server.replaced}: restart it, standbys first; with minorUpgrade in the stack file, `make up` does",
            "docs/updates.md",
        )
    if instance.checksum_failures:
        yield Finding(
            Level.DEGRADED,
            "checksums",
            server.name,
            f"{instance.checksum_failures} checksum failures: pages on its disk are damaged. Look into its log and at the disk, "
            "and make a new clone of the standby",
        )
    if instance.archiver.failing:
        yield Finding(
            Level.DEGRADED,
            "archiver",
            server.name,
            f"archiving fails at {instance.archiver.last_failed_wal} ({instance.archiver.failed} failures), and WAL stays until "
            "it works: its log says why",
        )
    declared = {one.slot for one in snapshot.servers}
    for slot in instance.slots:
        if slot.name not in declared and not slot.active and not slot.synced and slot.wal_status != "lost":
            yield Finding(
                Level.DEGRADED,
                "foreign slot",
                server.name,
                f"slot {slot.name} belongs to no server of the stack file, nobody reads it, and it holds back "
                f"{size(slot.held_back_bytes)} of WAL: drop it if nobody needs it",
            )


def _identifier(snapshot: Snapshot) -> str:
    """The cluster's: that of the server that takes writes, else of most servers."""
    of = snapshot.writers if len(snapshot.writers) == 1 else snapshot.servers
    counted = Counter(server.instance.system_identifier for server in of if server.instance)
    return counted.most_common(1)[0][0]
