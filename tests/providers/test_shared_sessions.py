"""One session for all reads of a refresh: for one at a time, and never one that has ended."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Event

import pytest

from tde_replication.errors import AnotherCluster, NoDatabase, Unavailable
from tde_replication.hosts import facts
from tde_replication.hosts.facts import Facts
from tde_replication.postgres import shared
from tde_replication.postgres.extension import Extension
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.session import server_session, session
from tde_replication.postgres.starting import start
from tests.engine.workspace import eventually
from tests.providers.servers import Node, Servers

PATIENCE = 20
OURS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'tde-replication' AND pid <> pg_backend_pid() ORDER BY 1"
)


@pytest.fixture(scope="module")
def node(servers: Servers) -> Iterator[Node]:
    made = servers.primary("shared")
    yield made
    made.stop()


def pid(node: Node, database: str | None = None, purpose: str = "test") -> int:
    with server_session(node.host, node.data, purpose, database) as server:
        return server.connection.info.backend_pid


def others(node: Node) -> list[int]:
    return [number for (number,) in node.rows(OURS)]


def test_reads_share_one_and_it_ends_with_the_refresh(node: Node) -> None:
    with facts.shared():
        first = pid(node)
        assert {pid(node), pid(node, "postgres")} == {first}
        assert pid(node, "template1") not in {first, pid(node)}
        assert others(node) == [first]
        node.rows("CREATE DATABASE elsewhere")  # which nobody can as long as a session is in template1
        assert pid(node, "elsewhere") not in {first, pid(node)}
        assert len(others(node)) == 2
    eventually(lambda: others(node) == [])
    assert pid(node) != pid(node)
    node.rows("DROP DATABASE elsewhere")


def test_a_change_ends_it_and_opens_its_own(node: Node) -> None:
    known = Facts()
    with known.read():
        first = pid(node)
        with known.change():
            eventually(lambda: others(node) == [])
            assert first not in {pid(node), pid(node)}
            assert others(node) == []


def test_one_that_the_server_has_ended_is_not_used(node: Node) -> None:
    with facts.shared():
        first = pid(node)
        node.rows("SELECT pg_terminate_backend(%s, 5000)", [first])
        second = pid(node)
        assert pid(node) == second != first
        with facts.unshared():
            node.stop()
            start(node.server, "shared", node.server.binaries)
        third = pid(node)
        assert third != second
        assert pid(node) == third


def test_two_do_not_have_it_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, given_back, waits = Event(), Event(), Event()

    def hold() -> int:
        with server_session(node.host, node.data, "test") as server:
            taken.set()
            assert given_back.wait(PATIENCE)
            return server.connection.info.backend_pid

    def wait() -> int:
        waits.set()
        return pid(node)

    with facts.shared(), ThreadPoolExecutor(2) as threads:
        holding = threads.submit(copy_context().run, hold)
        assert taken.wait(PATIENCE)
        waiting = threads.submit(copy_context().run, wait)
        assert waits.wait(PATIENCE)
        assert not waiting.done()
        with monkeypatch.context() as patch:  # who has waited for long has one opened
            patch.setattr(shared, "PATIENCE", 0)
            own = pid(node)
        given_back.set()
        assert holding.result(PATIENCE) == waiting.result(PATIENCE) != own
        assert others(node) == [holding.result()]


def test_what_one_read_sets_is_not_there_for_the_next(node: Node) -> None:
    with facts.shared():
        with server_session(node.host, node.data, "test") as server, server.within(5, locks=5):
            assert server.value("SHOW statement_timeout") == "5s"
        with server_session(node.host, node.data, "another") as server:
            assert server.value("SHOW statement_timeout") == "1min"
            assert server.connection.limit == 60
            assert server.purpose == "another"


def test_a_query_that_reads_share_is_asked_once_by_session(node: Node) -> None:
    made = ReplicationSlot.model_validate({**node.inside, "slot": "tde_shared"})
    with facts.shared():
        assert made.read() is None
        with facts.unshared():
            made.create()
        assert made.read() is None
    with facts.shared():
        assert made.read() == made
    made.delete()


def test_each_has_its_own_sentence_for_an_error_that_is_shared(node: Node) -> None:
    with facts.shared():
        for purpose in ("one", "other"):
            with pytest.raises(NoDatabase, match=f"^{purpose}: the server on .* has no database nosuch$"):
                pid(node, "nosuch", purpose)
            other = Extension.model_validate({**node.inside, "system_identifier": "7", "database": "postgres"})
            with pytest.raises(AnotherCluster, match=f"^{purpose}: "), session(other, purpose):
                pass
            with pytest.raises(Unavailable, match=r"^no server runs on "):
                pid(Node(node.directory.replace(data_directory="/nowhere"), node.server))
