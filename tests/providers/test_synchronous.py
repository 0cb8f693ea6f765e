"""Commits that wait for standbys, on a real primary with one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from tde_replication.postgres.synchronous import Synchronous, SynchronousStandbys
from tde_replication.postgres.topology import Topology
from tde_replication.postgres.topology_server import TopologyServer
from tde_replication.waiting import until
from tests.providers.servers import Node, Servers


@pytest.fixture(scope="module")
def standby(servers: Servers, primary: Node) -> Node:
    made = servers.standby(primary, "synchronous")
    name = made.server.name
    assert until(
        lambda: bool(primary.rows("SELECT 1 FROM pg_stat_replication WHERE application_name = %s", [name])), seconds=20
    )
    return made


@pytest.fixture(autouse=True)
def nothing_left(primary: Node) -> Iterator[None]:
    yield
    primary.rows("ALTER SYSTEM RESET synchronous_standby_names")
    primary.rows("SELECT pg_reload_conf()")


def declared(*standbys: str, number: int = 1, when_too_few: Literal["wait", "continue"] = "continue") -> Synchronous:
    return Synchronous(mode="quorum", number=number, standbys=list(standbys), when_too_few=when_too_few)


def topology(primary: Node, synchronous: Synchronous | None) -> Topology:
    node = TopologyServer(
        name="db1",
        host="local",
        data_directory=str(primary.data),
        binaries=primary.server.binaries,
        slot="tde_db1",
    )
    return Topology(primary="db1", servers=[node], synchronous=synchronous)


def resource(primary: Node, names: str) -> SynchronousStandbys:
    return SynchronousStandbys(**primary.inside, names=names)


def live(primary: Node) -> str:
    return str(primary.value("SHOW synchronous_standby_names"))


def commits(primary: Node) -> bool:
    """Whether a client's commit comes back."""
    with primary.host.connect(primary.data, "postgres") as client, ThreadPoolExecutor(1) as pool:
        client.execute("SET synchronous_commit = on")
        pid = client.info.backend_pid
        commit = pool.submit(client.execute, "SELECT pg_logical_emit_message(true, 'test', 'test')")

        def settled() -> bool:
            """It waits for longer than its standby takes to have it."""
            waits = primary.value(
                "SELECT wait_event = 'SyncRep' AND NOT EXISTS (SELECT FROM pg_stat_replication WHERE flush_lsn < "
                "pg_current_wal_flush_lsn()) FROM pg_stat_activity WHERE pid = %s",
                [pid],
            )
            return commit.done() or bool(waits)

        assert until(settled, seconds=20)
        if waited := not until(commit.done, seconds=1):
            primary.rows("SELECT pg_cancel_backend(%s)", [pid])
        commit.result(timeout=20)
    return not waited


def test_it_is_set_drifts_and_is_given_back(primary: Node, standby: Node) -> None:
    name = standby.server.name
    primary.rows("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (\"somebody\")'")
    primary.rows("SELECT pg_reload_conf()")
    assert until(lambda: live(primary) != "", seconds=10)
    wanted = resource(primary, declared(name).names())
    made = wanted.create()
    assert live(primary) == f'ANY 1 ("{name}")'
    assert not made.changed(made.read())
    assert commits(primary)
    made = made.replace(names=declared("db-9", name, number=2).names())
    assert made.changed(made.replace(names="").read()) == {"names"}
    made = made.update(made)
    assert live(primary) == f'ANY 2 ("db-9", "{name}")'
    made.delete()
    assert live(primary) == 'FIRST 1 ("somebody")'
    made.delete()
    assert live(primary) == 'FIRST 1 ("somebody")', "somebody else's"


@pytest.mark.parametrize("left", ['ANY 1 ("db8")', ""])
def test_what_was_there_before_comes_back_where_commits_went_on_by_less(primary: Node, left: str) -> None:
    """Else they would wait for standbys that go with the stack."""
    primary.rows("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (\"somebody\")'")
    primary.rows("SELECT pg_reload_conf()")
    assert until(lambda: live(primary) != "", seconds=10)
    made = resource(primary, 'ANY 2 ("db8", "db9")').create()
    resource(primary, left).create()
    made.delete()
    assert live(primary) == 'FIRST 1 ("somebody")'


@pytest.mark.parametrize(
    ("synchronous", "after"),
    [
        pytest.param(declared("db9", "{}", number=2), 'ANY 1 ("{}")', id="fewer"),
        pytest.param(declared("db8", "db9"), "", id="none"),
        pytest.param(declared("{}", when_too_few="wait"), 'ANY 1 ("{}")', id="another one is declared, and streams"),
        pytest.param(declared("db8", "db9", when_too_few="wait"), 'ANY 2 ("db8", "db9")', id="they shall wait"),
        pytest.param(None, "", id="not declared any more"),
    ],
)
def test_commits_that_wait_go_on(primary: Node, standby: Node, synchronous: Synchronous | None, after: str) -> None:
    name = standby.server.name
    after = after.replace("{}", name)
    if synchronous:
        names = [one.replace("{}", name) for one in synchronous.standbys]
        synchronous = synchronous.model_copy(update={"standbys": names})
    resource(primary, 'ANY 2 ("db8", "db9")').create()
    assert not commits(primary)
    former = topology(primary, declared("db8", "db9", number=2))
    found = former.read()
    assert found.commits == "wait"
    topology(primary, synchronous).update(found)
    assert live(primary) == after
    assert commits(primary) == (after != 'ANY 2 ("db8", "db9")')


def test_what_lets_them_go_on_is_set_again_by_the_same_up(primary: Node, standby: Node) -> None:
    del standby
    names = 'ANY 2 ("db8", "db9")'
    wanted = SynchronousStandbys(**primary.inside, names=names, when_too_few="continue").create()
    found = wanted.read()
    assert wanted.changed(found) == {"commits"}
    former = topology(primary, declared("db8", "db9", number=2))
    former.update(former.read())
    assert live(primary) == ""
    assert wanted.update(found) == wanted
    assert live(primary) == names
    waiting = wanted.replace(when_too_few="wait")
    assert not waiting.changed(waiting.read())


def test_it_is_set_on_the_next_primary_where_its_value_stays_the_same(primary: Node) -> None:
    wanted = resource(primary, "")
    assert wanted.replace(data_directory="/another").changed(wanted) == {"data_directory"}


def test_that_they_wait_is_no_drift_where_they_shall(primary: Node, standby: Node) -> None:
    del standby
    resource(primary, 'ANY 2 ("db8", "db9")').create()
    wanted = topology(primary, declared("db8", "db9", number=2, when_too_few="wait"))
    assert wanted.read() == wanted


def test_what_somebody_else_has_set_is_left(primary: Node) -> None:
    resource(primary, 'ANY 1 ("theirs")').create()
    wanted = topology(primary, None)
    wanted.update(wanted)
    assert live(primary) == 'ANY 1 ("theirs")'
