"""tde_replication.vault.address and configuration on a real OpenBao: what the environment says of it, and what is asked of it."""

from typing import Any

import pytest

from tde_replication.vault.address import description
from tde_replication.vault.configuration import configured
from tests.openbao import OpenBao, openbao

__all__ = ["openbao"]


@pytest.fixture
def client(openbao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in openbao.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VAULT_NAMESPACE", raising=False)
    return openbao.client()


def test_a_namespace_is_taken_from_the_environment_and_asked_in(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client.write_data("sys/namespaces/department")
    client.adapter.namespace = "department"
    client.sys.enable_secrets_engine("kv", path="tde", options={"version": "2"}, description=description("orders"))
    assert not configured().made_for("tde", "orders")
    monkeypatch.setenv("VAULT_NAMESPACE", "department/")
    found = configured()
    assert found.namespace == "department"
    assert found.made_for("tde", "orders")
