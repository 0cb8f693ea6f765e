"""A stack on a server with somebody's traps: nothing of theirs runs as the superuser, from the first preview to destroy.

tests/providers has the reconcilers one by one in such a database, and tests/kinds servers on every kind of host.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

import psycopg
import pytest

from tests.engine.change import edited
from tests.engine.cluster import Cluster, base_directory, discard
from tests.engine.test_adopted import Adopted
from tests.engine.test_teardown import declare
from tests.engine.workspace import Output, Workspace, sql
from tests.openbao import OpenBao
from tests.providers.traps import GRANTS, OF_OWNER, OPTIONS, RAN, Attacker

POWERS = (
    "SELECT * FROM pg_roles WHERE rolname <> 'replicator' ORDER BY rolname",
    "SELECT * FROM pg_auth_members WHERE pg_get_userbyid(member) <> 'replicator' ORDER BY oid",
    "SELECT * FROM pg_parameter_acl ORDER BY oid",
    "SELECT dbid, classid, objid FROM pg_shdepend WHERE refobjid = 'mallory'::regrole AND deptype = 'a' ORDER BY 1, 2, 3",
)
"""What roles may do, all but the stack's own, and what others gave to the owner."""
PROOF = "tde_replication_check_tde_db2"


class Careful(Cluster):
    """Whose DBA looks at nothing by a search path that somebody else may have set."""

    def sql(self, name: str, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        return sql(self.sockets(name), self.ports[name], query, database, options=OPTIONS)

    def attacker(self, database: str) -> Attacker:
        sockets, port = str(self.sockets("db1")), self.ports["db1"]
        return Attacker(
            psycopg.connect(host=sockets, port=port, user="postgres", dbname=database, autocommit=True, options=OPTIONS)
        )

    def careless(self, name: str) -> None:
        sql(self.sockets(name), self.ports[name], "SELECT unnest(ARRAY['a'])")

    def powers(self) -> list[Any]:
        return [self.sql("db1", query) for query in POWERS]


class Logs:
    """What the servers wrote, also in logs that are removed meanwhile."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open: dict[int, TextIO] = {}

    def close(self) -> None:
        for log in self._open.values():
            log.close()

    def sprung(self) -> list[str]:
        """The traps that ran since this was asked before."""
        for path in self._cluster.base.glob("*/postgresql.log"):
            if (number := path.stat().st_ino) not in self._open:
                self._open[number] = path.open(errors="replace")
        return [line for log in self._open.values() for line in log if RAN in line]

    def well(self, done: Output) -> None:
        """It came to its end, and past all traps."""
        assert self.sprung() == []
        assert done.code == 0, done.errors or done.text


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Careful]:
    base = base_directory()
    made = Careful(Workspace(tmp_path, "down", openbao.environment), base, 1, openbao, binaries=encrypted_binaries)
    made.workspace.init()
    yield made
    discard(made)


@pytest.fixture
def logs(cluster: Careful) -> Iterator[Logs]:
    with closing(Logs(cluster)) as made:
        yield made


def let_in(cluster: Careful) -> None:
    """Somebody owns the stack's database, and may create in the one that most sessions of a superuser are in."""
    cluster.sql("db1", "CREATE ROLE mallory LOGIN")
    cluster.sql("db1", "CREATE DATABASE app OWNER mallory")
    cluster.sql("db1", "GRANT CREATE ON SCHEMA public TO mallory; GRANT CREATE ON DATABASE postgres TO mallory")
    with cluster.attacker("app") as owner:
        owner.owns("app")
    with cluster.attacker("postgres") as guest:
        guest.visits()


def test_an_owner_who_tries_everything_gets_nothing(cluster: Careful, logs: Logs) -> None:
    adopted, workspace = Adopted(cluster, encryption=True), cluster.workspace
    let_in(cluster)
    adopted.before, before = adopted.look(), cluster.powers()
    assert logs.sprung() == []

    declare(cluster, 1, database="app")
    logs.well(workspace.preview())
    logs.well(workspace.up())
    logs.well(workspace.preview("--expect-no-changes"))
    assert cluster.powers() == before

    with cluster.attacker("app") as owner:
        # The extension is there now, and the role.
        owner.plants_pg_tde(*OF_OWNER)
        owner.does(*GRANTS, f"CREATE SCHEMA {PROOF}")
        owner.does(f"CREATE VIEW {PROOF}.proof AS SELECT 42 AS content WHERE evil.sprung('proof')")
        cluster.stop("db2")
        shutil.rmtree(cluster.data("db2"))
        changes = {"key": {"name": "another"}, "replication": {"passwordVersion": 2}}
        workspace.write(edited(workspace.cluster, lambda c: c.update(changes)))
        refused = workspace.up()
        assert logs.sprung() == []
        assert refused.code != 0
        assert f"schema {PROOF} in database app is owned by mallory" in refused.text, refused.errors
        owner.does(f"DROP SCHEMA {PROOF} CASCADE")
    logs.well(workspace.up())
    logs.well(workspace.run("refresh", "--preview-only", "--expect-no-changes"))
    assert cluster.streaming() == ["tde_db2"]
    assert cluster.powers() == before

    # All this is seen where it happens.
    cluster.careless("db2")
    assert logs.sprung() != []
    cluster.careless("db1")
    assert logs.sprung() != []
    assert cluster.powers() != before
    cluster.sql("db1", "ALTER ROLE mallory NOSUPERUSER")

    logs.well(workspace.destroy())
    assert cluster.powers() == before
    after = adopted.look()
    # A server key can never be unset: with it stays what opens it.
    adopted.before["files"] = ["data", "down.vault-ca.pem", "down.vault-token", "postgresql.log"]
    assert after == adopted.before
    cluster.stop("db1")
