"""Parameters with which a server does not start: `up` fails, the server runs as before, and nothing is left of them.

So too where it was killed meanwhile: the next `up` or `destroy` puts back what it had changed.
"""

from typing import Any

import pytest

from tde_replication.postgres.guc import values_in
from tests.engine.cluster import Cluster
from tests.engine.interruption import (
    Kill,
    interrupted,
    kill_engine,
    kill_primary,
    kill_provider,
    lose_state,
    strays_gone,
)
from tests.engine.test_adopted import Adopted
from tests.engine.test_teardown import declare
from tests.engine.workspace import eventually


@pytest.fixture
def cluster(not_there_yet: Cluster) -> Cluster:
    """Not encrypted: what it tells has nothing to do with pg_tde."""
    return not_there_yet


def settings(cluster: Cluster, **values: Any) -> None:
    """Declare other parameters of the primary."""
    declare(cluster, 1, db1={**cluster.workspace.cluster["servers"]["db1"], "settings": values}, encryption="off")


def runs_well(cluster: Cluster) -> None:
    assert cluster.running("db1")
    eventually(lambda: cluster.streaming() == ["tde_db2"])


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"shared_preload_libraries": "pg_cron"},
        'server db1 would not start with its new shared_preload_libraries: could not access file "pg_cron"',
    ),
    (
        {"max_connections": 3, "work_mem": "9MB"},
        'server db1 would not start with its new max_connections, work_mem: "superuser_reserved_connections" (3) plus',
    ),
    (
        {"logging_collector": True, "log_directory": "/proc/nowhere", "work_mem": "9MB"},
        "Its former values are put back, and it runs as before",
    ),
]
"""Two that a trial tells, and one that only the start does."""


@pytest.mark.parametrize("adopt", [False, True])
def test_values_with_which_the_primary_does_not_start(cluster: Cluster, *, adopt: bool) -> None:
    adopted = Adopted(cluster, encryption=False) if adopt else None
    db1 = cluster.workspace.cluster["servers"]["db1"] | {"restart": "allowed"}
    declare(cluster, 1, db1=db1, encryption="off")
    cluster.workspace.up_well()
    pid, file = cluster.pid("db1"), cluster.data("db1") / "postgresql.auto.conf"
    before = sorted(file.read_text().splitlines())
    for values, told in WRONG:
        settings(cluster, **values)
        failed = cluster.workspace.up()
        assert failed.code != 0
        assert told in " ".join(failed.errors), failed.errors
        runs_well(cluster)
        assert sorted(file.read_text().splitlines()) == before
        assert (cluster.pid("db1") == pid) == (values is not WRONG[2][0])
    settings(cluster)
    cluster.workspace.up_well()
    cluster.workspace.unchanged()
    assert cluster.workspace.destroy().code == 0
    if adopted:
        assert {**adopted.look(), "pid": 0} == {**adopted.before, "pid": 0}


UPDATE = "Server db1 updating"


@pytest.mark.parametrize("kill", [kill_engine, kill_provider, kill_primary, lose_state])
def test_an_update_that_was_killed_is_put_back_when_its_line_is_taken_out(cluster: Cluster, kill: Kill) -> None:
    declare(cluster, 1, encryption="off")
    cluster.workspace.up_well()
    settings(cluster, max_connections=130, work_mem="9MB")
    _, step = interrupted(cluster, ["up"], kill, lambda name: name == UPDATE)
    assert step
    strays_gone(cluster)
    cluster.workspace.unlock()
    settings(cluster)
    cluster.workspace.up_well()
    runs_well(cluster)
    cluster.workspace.unchanged()
    if kill is lose_state:
        return  # it came to its end, and only Pulumi does not know
    file = (cluster.data("db1") / "postgresql.auto.conf").read_text()
    assert "130" not in file
    assert "9MB" not in file
    assert cluster.sql("db1", "SELECT current_setting('max_connections'), current_setting('work_mem')") == [
        ("100", "4MB")
    ]


@pytest.mark.parametrize("kill", [kill_engine, kill_provider, lose_state])
def test_somebodys_server_gets_its_values_back_from_a_destroy_after_a_killed_update(
    cluster: Cluster, kill: Kill
) -> None:
    adopted = Adopted(cluster, encryption=False)
    db1 = cluster.workspace.cluster["servers"]["db1"] | {"restart": "allowed"}
    declare(cluster, 1, db1=db1, encryption="off")
    file = cluster.data("db1") / "postgresql.auto.conf"
    before = values_in(file.read_text())
    cluster.workspace.up_well()
    settings(cluster, max_wal_size="3GB", maintenance_work_mem="90MB", max_connections=130)
    _, step = interrupted(cluster, ["up"], kill, lambda name: name == UPDATE)
    assert step
    strays_gone(cluster)
    cluster.workspace.unlock()
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
    assert values_in(file.read_text()) == before
    assert adopted.look()["files"] == adopted.before["files"]
