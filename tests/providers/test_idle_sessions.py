"""Sessions that changes use again: as new for whoever gets one, and never one that has ended."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tde_replication.errors import Unavailable
from tde_replication.hosts import idle
from tde_replication.hosts.idle import IdleSessions
from tde_replication.parallel import parallel_map
from tde_replication.postgres.session import server_session
from tde_replication.postgres.starting import start
from tests.engine.workspace import eventually
from tests.providers.servers import Node, Servers
from tests.providers.test_shared_sessions import others, pid

LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


@pytest.fixture(scope="module")
def node(servers: Servers) -> Iterator[Node]:
    made = servers.primary("idle")
    yield made
    made.stop()


@pytest.fixture
def sessions(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdleSessions]:
    monkeypatch.setattr(idle, "IDLE", 0.2)
    made = IdleSessions()
    yield made
    eventually(lambda: others(node) == [])


def test_one_change_after_the_other_uses_it_and_it_ends_soon_after_the_last(node: Node, sessions: IdleSessions) -> None:
    with sessions.used():
        first = pid(node)
        assert pid(node, "postgres") == first
    with sessions.used():
        assert pid(node) == first
        assert others(node) == [first]
    eventually(lambda: others(node) == [])
    assert pid(node) != pid(node), "nothing is kept outside of changes"


def test_nothing_of_the_one_before_is_left(node: Node, sessions: IdleSessions) -> None:
    show = "SELECT current_setting('search_path'), current_setting('statement_timeout'), current_setting('work_mem')"
    with sessions.used():
        with server_session(node.host, node.data, "one") as server:
            before = server.row(show)
            server.rows("SET work_mem = '7MB'")
            server.rows("SET search_path = public")
            server.rows("SET statement_timeout = '7s'")
            server.rows("CREATE TEMPORARY TABLE mine (a int)")
            server.rows("SELECT pg_advisory_lock(7)")
            number = server.connection.info.backend_pid
        assert node.value(LOCKS) == 0, "a lock ends with its session, and not with the next one"
        with server_session(node.host, node.data, "other") as server:
            assert server.connection.info.backend_pid == number
            assert server.row(show) == before
            assert server.value("SELECT to_regclass('pg_temp.mine')") is None


def test_each_of_several_at_once_has_its_own(node: Node, sessions: IdleSessions) -> None:
    together = Barrier(3)

    def ask(_: int) -> int:
        with server_session(node.host, node.data, "test") as server:
            together.wait(20)
            return server.connection.info.backend_pid

    with sessions.used():
        found = parallel_map(ask, range(3))
        assert len(set(found)) == 3
        assert pid(node) in found


def test_one_in_which_something_failed_is_closed(node: Node, sessions: IdleSessions) -> None:
    with sessions.used():
        first = pid(node)
        with pytest.raises(ZeroDivisionError), server_session(node.host, node.data, "test"):
            1 / 0  # noqa: B018
        with server_session(node.host, node.data, "test") as server:
            server.rows("BEGIN")
            second = server.connection.info.backend_pid
        third = pid(node)
        assert len({first, second, third}) == 3
        eventually(lambda: others(node) == [third])


def test_nobody_is_left_in_the_template(node: Node, sessions: IdleSessions) -> None:
    with sessions.used():
        first = pid(node, "template1")
        eventually(lambda: others(node) == [])
        node.rows("CREATE DATABASE elsewhere")
        assert pid(node, "template1") != first
        assert pid(node, "elsewhere") == pid(node, "elsewhere") != pid(node)
    eventually(lambda: others(node) == [])
    node.rows("DROP DATABASE elsewhere")


def test_one_that_has_ended_is_not_used(node: Node, sessions: IdleSessions) -> None:
    with sessions.used():
        first = pid(node)
        node.rows("SELECT pg_terminate_backend(%s, 5000)", [first])
        second = pid(node)
        assert second != first
        node.stop()
        with pytest.raises(Unavailable):
            pid(node)
        start(node.server, "idle", node.server.binaries)
        assert pid(node) not in {first, second}


def test_a_thread_that_no_change_started_has_none(node: Node, sessions: IdleSessions) -> None:
    with sessions.used(), ThreadPoolExecutor(1) as threads:
        assert threads.submit(pid, node).result() != threads.submit(pid, node).result()
