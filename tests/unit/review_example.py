"""The review that docs/review.md shows, and its picture: somebody changed a password, db3 was away for too long, and the stack
file wants more connections."""

from dataclasses import replace

from tde_replication.postgres.base_backup import ClonedDirectory
from tde_replication.postgres.starting import restart_cost
from tde_replication.postgres.upstream import Upstream
from tde_replication.records import Cost
from tde_replication.review import Review, read, review
from tests.unit.previews import Stream, server

GIB = 2**30
PACK = ("encryption", "protected", "slot-cap", "standbys", "synchronous", "tls", "wal-encryption")


class Clone(ClonedDirectory):
    """Of a cluster that is not here."""

    def _needed(self) -> float:
        return 38.2 * GIB

    def _free(self) -> int:
        return 512 * GIB


CLONE = Clone(
    host="local",
    data_directory="/srv/pg/18",
    binaries="/usr/lib/postgresql/18/bin",
    stack="orders",
    name="db3",
    origin="base backup of db1",
    upstream=Upstream(host="db1", port=5432, role="replicator", tls="verify-full", passfile=""),
    slot="tde_db3",
    primary_host="ssh://db1",
    primary_directory="/pg",
    primary_identifier="1",
    backup_rate=140 * 2**20,
)
GONE = "the WAL that it needs is gone"


def orders() -> Review:
    stream = Stream("orders")
    db1, db2, db3 = (server(name, running=True, settings={"shared_buffers": "8GB"}) for name in ("db1", "db2", "db3"))
    role = {"passwordMatches": True, "attributes": ["LOGIN", "REPLICATION"]}
    stream.change("ReplicationRole", "replicator", role, {**role, "passwordMatches": False}, role)
    wanted = {**db1, "settings": {"shared_buffers": "12GB"}}
    stream.record(replace(restart_cost("db1", ["shared_buffers"], "allowed", 2.4), of="Server"))
    stream.change("Server", "db1", db1, db1, wanted).record(Cost(kind="reload", server="db2", of="Server"))
    more = {**db2, "settings": {"shared_buffers": "8GB", "work_mem": "16MB"}}
    stream.refresh("Server", "db2", db2, db2).plan("update", "Server", "db2", db2, more)
    for cost in CLONE.costs(CLONE.replace(follows=GONE)):
        stream.record(replace(cost, of="DataDirectory"))
    directory = {**server("db3"), "follows": "the primary"}
    stream.change("DataDirectory", "db3", directory, {**directory, "follows": GONE}, directory, "replace")
    stream.change("Server", "db3", db3, {**db3, "running": False}, db3, "replace")
    stream.planned.append({"policyAnalyzeSummaryEvent": {"passed": PACK, "failed": ["key-age"]}})
    due = "key orders-2025 is 371 days old, of 365: set key.rotateAfter, or give key.name another value"
    warning = {"policyName": "key-age", "enforcementLevel": "advisory", "message": f"Why.\n{due}\n"}
    stream.planned.append({"policyEvent": warning})
    return review(read(stream.text))
