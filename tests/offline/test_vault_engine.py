"""The stand-in for pulumi-vault, and the official plugin where it can be had, under the real engine with its classes."""

import re
from collections.abc import Iterator
from pathlib import Path

import hvac.exceptions
import pytest

from tests.official import programs
from tests.offline.stack import Failed, Stack
from tests.openbao import OpenBao, openbao

__all__ = ["openbao"]

PROGRAM = """
import pulumi, pulumi_vault as vault

mount = vault.Mount("mount", path="engine", type="kv-v2", description=declared.get("description"))
other = vault.Mount("other", path="engine-other", type="kv", options={"version": "2"})
allowed = mount.path.apply(lambda path: f'path "{path}/data/*" {{ capabilities = ["{declared["capability"]}"] }}')
policy = vault.Policy("policy", name="engine", policy=allowed)
policies = policy.name.apply(lambda _: declared["policies"])
token = vault.Token("token", policies=policies, period="768h", no_parent=True, renew_min_lease=3600)
data = '{"user": "u", "password": "geheim"}'
last = pulumi.ResourceOptions(depends_on=[other, token])
vault.kv.SecretV2(
    "secret", last, mount=mount.path, name="a/b", data_json=data, custom_metadata=declared.get("metadata")
)
pulumi.export("accessor", token.id)
pulumi.export("token", token.client_token)
"""
DECLARED = {"description": "keys", "capability": "read", "policies": ["engine"]}
ADMIN = """
path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }
path "engine/metadata/*" { capabilities = ["deny"] }
"""


@pytest.fixture(params=programs("vault"))
def stack(request: pytest.FixtureRequest, tmp_path: Path, openbao: OpenBao) -> Iterator[Stack]:
    stack = Stack(tmp_path, PROGRAM, "vault", request.param, openbao.environment)
    yield stack
    stack.destroy()
    client = openbao.client()
    assert not {"engine/", "engine-other/"} & set(client.sys.list_mounted_secrets_engines()["data"])
    assert "engine" not in client.sys.list_policies()["data"]["policies"]


def test_life_of_a_stack(stack: Stack, openbao: OpenBao) -> None:
    client = openbao.client()
    stack.declare(**DECLARED)
    assert stack.planned() == {"create": 6}
    assert "engine/" not in client.sys.list_mounted_secrets_engines()["data"]

    assert stack.up() == {"created": 6}
    assert stack.planned() == {"unchanged": 6}
    outputs = stack.outputs()
    token = client.auth.token.lookup(outputs["token"])["data"]
    assert (token["accessor"], token["period"], token["orphan"]) == (outputs["accessor"], 768 * 3600, True)
    state = stack.state()
    for secret in ("geheim", outputs["token"], openbao.token):
        assert secret not in state

    changed = {"capability": "list", "policies": ["engine"]}
    stack.declare(**changed)
    assert stack.up() == {"updated": 2, "unchanged": 4}
    assert '"list"' in client.sys.read_policy("engine")["data"]["rules"]
    assert stack.up("--refresh") == {"unchanged": 6}

    client.auth.token.revoke_accessor(token["accessor"])
    client.sys.disable_secrets_engine("engine-other")
    client.sys.tune_mount_configuration("engine", description="by hand")
    client.sys.delete_policy("engine")
    assert stack.planned() == {"create": 2, "update": 2, "unchanged": 2}
    assert stack.up("--refresh") == {"created": 2, "updated": 2, "unchanged": 2}
    assert stack.up("--refresh") == {"unchanged": 6}

    before = stack.outputs()["accessor"]
    stack.declare(**changed | {"policies": ["engine", "reader"]})
    assert stack.up() == {"replaced": 1, "unchanged": 5}
    with pytest.raises(hvac.exceptions.VaultError):
        client.auth.token.lookup_accessor(before)
    assert client.auth.token.lookup_accessor(stack.outputs()["accessor"])["data"]["policies"] == [
        *("default", "engine", "reader")
    ]


def test_what_a_refresh_adds_after_creation_is_no_change(stack: Stack) -> None:
    """Empty values for what is not declared, which `--diff` shows: nothing is planned by them, and they are no drift."""
    stack.declare(**DECLARED)
    assert stack.up() == {"created": 6}
    shown = stack.pulumi("preview", "--refresh", "--diff", "--expect-no-changes")
    assert re.search(r"\+ allowedManagedKeys +: \[\]", shown), shown
    assert re.search(r"\+ metadata *: \{\}", shown), shown
    assert "6 unchanged" in shown
    stack.pulumi("refresh", "--preview-only", "--expect-no-changes")
    assert stack.up("--refresh", "--expect-no-changes") == {"unchanged": 6}  # now they are in the state
    shown = stack.pulumi("preview", "--refresh", "--diff", "--expect-no-changes")
    assert "allowedManagedKeys" not in shown


def test_what_was_half_made_is_finished_by_the_next_update(stack: Stack, openbao: OpenBao) -> None:
    client = openbao.client()
    client.sys.create_or_update_policy("admin", ADMIN)
    token = client.auth.token.create(policies=["admin"], no_parent=True)["auth"]["client_token"]
    stack.environment["VAULT_TOKEN"] = token
    stack.declare(**DECLARED, metadata={"maxVersions": 3})
    with pytest.raises(
        Failed, match=r"error writing custom metadata to engine/metadata/a/b, err=Error making API request"
    ) as failed:
        stack.up()
    assert token not in str(failed.value)
    assert "geheim" not in stack.state()

    stack.environment["VAULT_TOKEN"] = openbao.token
    assert stack.up() == {"updated": 1, "unchanged": 5}
    assert client.secrets.kv.v2.read_secret_metadata("a/b", mount_point="engine")["data"]["max_versions"] == 3
    assert stack.planned() == {"unchanged": 6}
