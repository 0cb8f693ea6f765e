"""The resources that this project itself has in Vault, on a real OpenBao: servers' tokens and what is in a secret."""

import re
from typing import Any

import hvac.exceptions
import pytest

from tde_replication.errors import Unavailable, UserError
from tde_replication.progress import reported_to
from tde_replication.vault import caller
from tde_replication.vault.secret import SecretContent
from tde_replication.vault.token import Token
from tde_replication.waiting import until
from tests.openbao import OpenBao, openbao

__all__ = ["openbao"]


@pytest.fixture
def client(openbao: OpenBao, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in openbao.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(caller._Caller, "told", False)
    made = openbao.client()
    made.sys.create_or_update_policy("open-keys", 'path "tde/data/*" { capabilities = ["read"] }')
    return made


def token(bao: OpenBao, **more: Any) -> Token:
    declared = {
        "address": bao.address,
        "ca": str(bao.ca),
        "server": "db1",
        "policies": ["open-keys"],
        "period_hours": 24,
    }
    return Token.model_validate(declared | more)


def secret_of(made: Token) -> str:
    assert made.client_token
    return made.client_token.get_secret_value()


def test_a_token_is_periodic_and_an_orphan_with_one_policy(openbao: OpenBao, client: Any) -> None:
    made = token(openbao).create()
    found = client.auth.token.lookup_accessor(made.accessor)["data"]
    assert (found["policies"], found["period"], found["orphan"], found["renewable"]) == (
        ["open-keys"],
        86400,
        True,
        True,
    )
    assert found["display_name"] == "token-db1"
    assert made.identity == made.accessor
    live = made.read()
    assert live
    assert token(openbao).changed(live) == set()
    assert live.client_token == made.client_token
    assert secret_of(made) not in repr(made)


def test_one_that_was_revoked_is_gone_and_revoked_again_without_an_error(openbao: OpenBao, client: Any) -> None:
    made = token(openbao).create()
    client.auth.token.revoke_accessor(made.accessor)
    assert made.read() is None
    made.delete()


def test_delete_revokes(openbao: OpenBao, client: Any) -> None:
    made = token(openbao).create()
    made.delete()
    assert not openbao.client(secret_of(made)).is_authenticated()
    del client


def test_it_is_renewed_in_the_second_half_of_its_period(openbao: OpenBao, client: Any) -> None:
    def renewed(made: Token) -> bool:
        return "last_renewal" in client.auth.token.lookup_accessor(made.accessor)["data"]

    made = token(openbao).create()
    made.read()
    assert not renewed(made)
    made.replace(period_hours=49).read()  # of a period of 49 hours, 24 are left
    assert renewed(made)


def test_a_renewal_that_is_denied_is_told_and_fails_nothing(
    openbao: OpenBao, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = token(openbao).create()
    client.sys.create_or_update_policy("look", 'path "auth/token/lookup-accessor" { capabilities = ["update"] }')
    caller_token = client.auth.token.create(policies=["look"])["auth"]["client_token"]
    monkeypatch.setenv("VAULT_TOKEN", caller_token)
    told: list[str] = []
    with reported_to(lambda text, _: told.append(text)):
        assert made.replace(period_hours=49).read() is not None
    [line] = told
    assert re.match("the Vault token of db1 ends in 2[34] hours and was not renewed: ", line)


def test_other_policies_or_another_period_replace_it_after_the_new_one_is_there() -> None:
    assert Token.replaced_by >= {"policies", "period_hours"}
    assert not Token.delete_before_replace


def content(bao: OpenBao, **more: Any) -> SecretContent:
    declared = {"address": bao.address, "ca": str(bao.ca), "mount": "secrets", "name": "replication/r"}
    return SecretContent.model_validate(declared | {"username": "r", "password": "pass"} | more)


@pytest.fixture
def kv(client: Any) -> Any:
    client.sys.enable_secrets_engine("kv", path="secrets", options={"version": "2"})
    assert until(lambda: written(client.secrets.kv.v2), seconds=10)
    yield client.secrets.kv.v2
    client.sys.disable_secrets_engine("secrets")


def written(kv: Any) -> bool:
    """A new mount is unavailable for a moment."""
    try:
        kv.create_or_update_secret("replication/r", {"username": "r", "password": "pass"}, mount_point="secrets")
    except hvac.exceptions.InvalidRequest:
        return False
    return True


def seen(bao: OpenBao) -> str | None:
    live = content(bao).read()
    return live.content if live else None


def version(kv: Any) -> int:
    found = kv.read_secret_version("replication/r", mount_point="secrets", raise_on_deleted_version=True)
    assert found["data"]["data"] == {"username": "r", "password": "pass"}
    return int(found["data"]["metadata"]["version"])


def test_a_secret_as_it_was_written(openbao: OpenBao, kv: Any) -> None:
    assert seen(openbao) == "as declared"
    content(openbao).create()
    assert version(kv) == 1


def test_one_that_was_deleted_is_seen_and_brought_back(openbao: OpenBao, kv: Any) -> None:
    kv.delete_latest_version_of_secret("replication/r", mount_point="secrets")
    assert seen(openbao) == "deleted"
    content(openbao).update(content(openbao, content="deleted"))
    assert (seen(openbao), version(kv)) == ("as declared", 1)


def test_one_that_was_destroyed_or_replaced_is_seen_and_written_again(openbao: OpenBao, kv: Any) -> None:
    kv.destroy_secret_versions("replication/r", versions=[1], mount_point="secrets")
    assert seen(openbao) == "deleted"
    content(openbao).update(content(openbao))
    assert (seen(openbao), version(kv)) == ("as declared", 2)
    kv.create_or_update_secret("replication/r", {"password": "other"}, mount_point="secrets")
    assert seen(openbao) == "another"
    content(openbao).update(content(openbao))
    assert (seen(openbao), version(kv)) == ("as declared", 4)


def test_one_that_is_not_there(openbao: OpenBao, kv: Any) -> None:
    kv.delete_metadata_and_all_versions("replication/r", mount_point="secrets")
    assert seen(openbao) is None
    content(openbao).create()
    assert seen(openbao) == "as declared"


def test_a_vault_that_cannot_be_asked_fails_the_run_and_is_told_once(
    openbao: OpenBao, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del client
    monkeypatch.setenv("VAULT_ADDR", "https://127.0.0.1:1")
    one, other = token(openbao, accessor="a"), content(openbao)
    with pytest.raises(UserError, match=r"nothing listens at https://127.0.0.1:1") as told:
        one.read()
    assert not isinstance(told.value, Unavailable)  # which would pass for "as last known"
    assert other.read() is other


def test_the_environments_token_goes_to_its_own_address_alone(
    openbao: OpenBao, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever address a resource declares."""
    del client
    assert token(openbao, address="https://evil.example.net").client.address == openbao.address
    monkeypatch.delenv("VAULT_ADDR")
    with pytest.raises(UserError, match="cannot be asked: set VAULT_ADDR"):
        _ = token(openbao).client
    monkeypatch.setattr(caller, "configured", {"vault:token": "of the stack"}.get)
    assert token(openbao).client.address == openbao.address
    assert token(openbao).client.token == "of the stack"
