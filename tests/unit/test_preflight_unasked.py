"""Every check before a plan, on machines that cannot be reached: none passes without a word, but for what is not there yet."""

from collections.abc import Callable
from unittest.mock import MagicMock, Mock

import pytest

from tde_replication import hosts, unasked
from tde_replication.errors import LoginFailed, NoExtension, SqlError, Unavailable
from tde_replication.host_settings import Docker
from tde_replication.preflight import (
    adoption as preflight_adoption,
    clone as preflight_clone,
    ports as preflight_ports,
    server as preflight,
)
from tde_replication.preflight.vault import check_vault
from tde_replication.settings import Cluster, Server
from tde_replication.vault.names import VaultNames
from tests.unit.test_preflight import container

GONE = Unavailable("db1 cannot be reached")
SITE = container(18)
ADOPTED = Server(host=Docker(docker="postgres"), adopt=True)
CLUSTER = Cluster(primary="db1", servers={"db1": ADOPTED, "db2": Server(host=Docker(docker="postgres"))})
STANDBY = CLUSTER.servers["db2"]
NAMES = VaultNames("trial", "project/trial/trial", "tde-trial", shared=False, role="replicator", keys=("key",))

CHECKS: dict[str, Callable[[], object]] = {
    "data directory and port": lambda: preflight.check_server(STANDBY, SITE, "stack", is_primary=False),
    "failover": lambda: preflight.check_failover(CLUSTER.members[:2], [SITE, SITE]),
    "adoption": lambda: preflight_adoption.adoption(ADOPTED, SITE, {}),
    "keys of an adopted server": lambda: preflight_adoption.check_adoption(CLUSTER, SITE, "/token", in_force=True),
    "where the keys are": lambda: preflight.check_keys(CLUSTER, SITE, NAMES, "", in_force=True),
    "a lost mount": lambda: preflight.check_mount_exists(Mock(), CLUSTER, SITE, "tde-trial", "/token"),
    "dependents": lambda: preflight_adoption.check_dependents(CLUSTER, SITE, "/token", in_force=True),
    "listens": lambda: preflight_ports.of_adopted(CLUSTER, CLUSTER.primary_server, SITE),
    "clones": lambda: preflight_clone.check_clones(
        ("cluster.servers.db1", ADOPTED, SITE), [("cluster.servers.db2", STANDBY, SITE)]
    ),
}


def told_by(check: Callable[[], object]) -> list[str]:
    said: list[str] = []
    with unasked.told(said.append):
        check()
    return said


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_machine_that_cannot_be_reached(check: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable:
        account, address = "postgres", "docker://db1"

        def __getattr__(self, name: str) -> Mock:
            return Mock(side_effect=GONE)

    monkeypatch.setattr(hosts, "host", lambda _: Unreachable())
    [text] = told_by(check)
    assert "db1 cannot be reached. Not checked: " in text


def test_the_keys_of_a_server_that_is_not_there_yet_are_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Mock(connect=Mock(side_effect=GONE), listing=Mock(return_value=[]), read=Mock(return_value=None))
    monkeypatch.setattr(hosts, "host", lambda _: host)
    assert told_by(CHECKS["where the keys are"]) == []
    assert told_by(CHECKS["clones"]) == []


def test_a_vault_that_does_not_answer() -> None:
    vault = MagicMock()
    vault.client.post.side_effect = GONE
    [text] = told_by(lambda: check_vault(vault, NAMES))
    assert "Not checked: whether the Vault accepts the stack" in text


@pytest.mark.parametrize("ready", [True, False])
def test_a_server_that_does_not_let_the_superuser_in(monkeypatch: pytest.MonkeyPatch, *, ready: bool) -> None:
    """One that is ready has answered; one that is starting has not."""
    refused = LoginFailed('the server does not answer: FATAL:  role "postgres" does not exist')
    host = Mock(connect=Mock(side_effect=refused), postmaster=Mock(return_value=Mock(ready=ready)))
    monkeypatch.setattr(hosts, "host", lambda _: host)
    said: list[str] = []
    with unasked.told(said.append):
        refusal, _ = preflight_adoption.adoption(ADOPTED, SITE, {})
    assert (refusal is not None, bool(said)) == (ready, not ready)
    if refusal:
        assert 'role "postgres" does not exist' in refusal
        assert "create that role, or allow it in pg_hba.conf" in refusal


@pytest.mark.parametrize("check", ["keys of an adopted server", "where the keys are"])
def test_a_statement_that_timed_out_is_no_cluster_without_pg_tde(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late = SqlError("canceling statement due to lock timeout (SQLSTATE 55P03).", "55P03")
    host = Mock(
        connect=Mock(side_effect=late), listing=Mock(return_value=["PG_VERSION"]), status=Mock(return_value=None)
    )
    monkeypatch.setattr(hosts, "host", lambda _: host)
    [text] = told_by(CHECKS[check])
    assert "canceling statement due to lock timeout" in text


@pytest.mark.parametrize("check", ["keys of an adopted server", "where the keys are"])
def test_a_server_without_pg_tde_is_an_answer(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Mock(
        connect=Mock(side_effect=NoExtension("database postgres has no extension pg_tde")),
        listing=Mock(return_value=["PG_VERSION"]),
        status=Mock(return_value=None),
    )
    monkeypatch.setattr(hosts, "host", lambda _: host)
    assert told_by(CHECKS[check]) == []
