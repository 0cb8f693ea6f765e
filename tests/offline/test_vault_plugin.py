"""The stand-in for pulumi-vault, call by call, on a real OpenBao: what was recorded of the plugin itself."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hvac.exceptions
import pytest

from tests.offline.harness import SIGNATURE, UNKNOWN, Plugin, Refused, is_secret, plain, told
from tests.openbao import OpenBao, openbao

__all__ = ["openbao"]

MOUNT, POLICY, TOKEN = "vault:index/mount:Mount", "vault:index/policy:Policy", "vault:index/token:Token"
SECRET = "vault:kv/secretV2:SecretV2"
READ = 'path "kv/*" { capabilities = ["read"] }'


@pytest.fixture(scope="module")
def vault(openbao: OpenBao) -> Iterator[Plugin]:
    with Plugin("vault", environment=openbao.environment, skipChildToken="true") as plugin:
        yield plugin


@pytest.fixture(scope="module")
def client(openbao: OpenBao) -> Any:
    return openbao.client()


@pytest.fixture
def kv(client: Any) -> Iterator[str]:
    client.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
    yield "kv"
    client.sys.disable_secrets_engine("kv")


def test_announces_itself_once(openbao: OpenBao) -> None:
    with Plugin("vault", environment=openbao.environment) as plugin:
        plugin.resource(POLICY).check({"policy": READ})
        assert plugin.engine.said == ["offline stand-in for pulumi-vault: the plugin itself is out of reach here"]


CHANGES: list[tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, str], bool]] = [
    # type, state, inputs, what differs, delete first
    (MOUNT, {"path": "a", "type": "kv"}, {"path": "b", "type": "kv"}, {"path": "UPDATE"}, False),
    (MOUNT, {"path": "a", "type": "kv"}, {"path": "a/", "type": "kv"}, {"path": "UPDATE"}, False),
    (MOUNT, {"type": "kv"}, {"type": "kv-v2"}, {"type": "UPDATE_REPLACE"}, False),
    (MOUNT, {"description": "x"}, {"description": "y"}, {"description": "UPDATE"}, False),
    (MOUNT, {"description": "x"}, {}, {"description": "DELETE"}, False),
    (MOUNT, {"description": ""}, {"description": "y"}, {"description": "UPDATE"}, False),
    (MOUNT, {"options": {"version": "1"}}, {"options": {"version": "2"}}, {"options.version": "UPDATE"}, False),
    (MOUNT, {"options": {}}, {"options": {"version": "2"}}, {"options.version": "ADD"}, False),
    (MOUNT, {"options": None}, {"options": {"version": "2"}}, {"options": "ADD"}, False),
    (MOUNT, {"options": {"version": "2"}}, {}, {"options.version": "DELETE"}, False),
    (MOUNT, {"local": False}, {"local": True}, {"local": "UPDATE_REPLACE"}, False),
    (MOUNT, {"options": None, "local": False, "description": ""}, {}, {}, False),
    (MOUNT, {"maxLeaseTtlSeconds": 60}, {}, {}, False),
    (MOUNT, {"maxLeaseTtlSeconds": 60}, {"maxLeaseTtlSeconds": 61}, {"maxLeaseTtlSeconds": "UPDATE"}, False),
    (POLICY, {"name": "a", "policy": "x"}, {"name": "a", "policy": "y"}, {"policy": "UPDATE"}, False),
    (POLICY, {"name": "a", "policy": ""}, {"name": "a", "policy": "y"}, {"policy": "UPDATE"}, False),
    (POLICY, {"name": "a", "policy": "x"}, {"name": "b", "policy": "x"}, {"name": "UPDATE_REPLACE"}, True),
    (POLICY, {"policy": "x"}, {"policy": UNKNOWN}, {"policy": "UPDATE"}, False),
    (TOKEN, {"policies": ["a", "b"]}, {"policies": ["b", "a"]}, {}, False),
    (TOKEN, {"policies": ["a"]}, {"policies": ["b", "a"]}, {"policies[1]": "ADD_REPLACE"}, False),
    (TOKEN, {"policies": ["a"]}, {"policies": UNKNOWN}, {"policies": "UPDATE_REPLACE"}, False),
    (TOKEN, {"policies": ["a"]}, {"policies": ["a", UNKNOWN]}, {"policies[1]": "ADD_REPLACE"}, False),
    (TOKEN, {"period": "1h"}, {"period": "2h"}, {"period": "UPDATE_REPLACE"}, False),
    (TOKEN, {"ttl": "1h"}, {}, {"ttl": "DELETE_REPLACE"}, False),
    (TOKEN, {"displayName": "a"}, {"displayName": "b"}, {"displayName": "UPDATE_REPLACE"}, False),
    (TOKEN, {"renewable": True, "noParent": True, "numUses": 3, "leaseDuration": 9}, {}, {}, False),
    (TOKEN, {"noParent": True}, {"noParent": False}, {"noParent": "UPDATE_REPLACE"}, False),
    (
        TOKEN,
        {"renewMinLease": 1},
        {"renewMinLease": 2, "renewIncrement": 3},
        {"renewMinLease": "UPDATE", "renewIncrement": "ADD"},
        False,
    ),
    (SECRET, {"dataJson": '{"a":1,"b":2}'}, {"dataJson": '{ "b": 2, "a": 1 }'}, {}, False),
    (SECRET, {"dataJson": '{"a":1}'}, {"dataJson": '{"a":2}'}, {"dataJson": "UPDATE"}, False),
    (SECRET, {"mount": "a", "name": "x"}, {"mount": "b", "name": "x"}, {"mount": "UPDATE_REPLACE"}, True),
    (SECRET, {"mount": "a", "name": "x"}, {"mount": "a", "name": "y"}, {"name": "UPDATE_REPLACE"}, True),
    (SECRET, {"customMetadata": {"maxVersions": 3}}, {}, {}, False),
    (
        SECRET,
        {"customMetadata": {"maxVersions": 3, "casRequired": False, "data": None}},
        {"customMetadata": {"maxVersions": 4}},
        {"customMetadata.maxVersions": "UPDATE"},
        False,
    ),
    (SECRET, {"deleteAllVersions": False}, {"deleteAllVersions": True}, {"deleteAllVersions": "UPDATE"}, False),
]


@pytest.mark.parametrize(("kind", "old", "new", "expected", "delete_first"), CHANGES)
def test_what_a_change_means(
    vault: Plugin,
    kind: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    expected: Mapping[str, str],
    delete_first: bool,  # noqa: FBT001
) -> None:
    resource = vault.resource(kind)
    assert resource.changes(old, new) == expected
    answer = resource.diff(old, {**new, "__defaults": []})
    replacing = {re.split(r"[.\[]", path)[0] for path, change in expected.items() if change.endswith("REPLACE")}
    assert set(answer.replaces) == replacing
    assert answer.deleteBeforeReplace == delete_first


def test_check_fills_in_and_refuses(vault: Plugin) -> None:
    inputs, failures = vault.resource(TOKEN).check({"policies": ["a"]})
    assert inputs == {"policies": ["a"], "displayName": "token", "__defaults": ["displayName"]}
    assert failures == []
    assert vault.resource(MOUNT).check({"path": "a"})[0] == {"path": "a", "__defaults": []}  # no default that is "off"

    named, _ = vault.resource(POLICY, "reader").check({"policy": READ})
    assert re.fullmatch(r"reader-[0-9a-f]{7}", named["name"])
    assert vault.resource(POLICY, "reader").check({"policy": READ}, named)[0]["name"] == named["name"]

    secret = vault.resource(SECRET, "s")
    assert secret.check({"dataJson": UNKNOWN})[1] == []
    for wrong, reason in (
        ('{"password": "hush', "unexpected end of JSON input"),
        ("hush", "invalid JSON"),
        ('"hush"', "json: cannot unmarshal string into Go value of type map[string]interface {}"),
    ):
        # Of no property: the engine would show its value.
        assert secret.check({"dataJson": wrong})[1] == [f": {reason}. Examine values at 's.dataJson'."]
    _, failures = vault.resource(TOKEN).check({"wrappingTtl": "1h"})
    assert failures == ["wrappingTtl: the offline stand-in for pulumi-vault does not serve it"]


def test_a_token_is_deprecated(openbao: OpenBao) -> None:
    with Plugin("vault", environment=openbao.environment) as plugin:
        plugin.resource(TOKEN, "t").check({"policies": ["a"]})
        [warning] = plugin.engine.warnings
    assert re.match(
        r"urn:\S+::t verification warning: Deprecated Resource: The vault_token resource is maintained", warning
    )


def test_a_name_that_pulumi_made_is_no_reason_to_delete_first(vault: Plugin) -> None:
    policy = vault.resource(POLICY, "reader")
    made, _ = policy.check({"policy": READ})
    assert made["__defaults"] == ["name"]
    replaced = made | {"namespace": "team"}
    assert not policy.diff(made, replaced).deleteBeforeReplace
    assert policy.diff(made, replaced | {"__defaults": []}).deleteBeforeReplace


def test_unserved_types_and_settings_are_named(vault: Plugin, openbao: OpenBao) -> None:
    with pytest.raises(Refused, match="does not serve vault:index/audit:Audit"):
        vault.resource("vault:index/audit:Audit").create({})
    with (
        pytest.raises(Refused, match="does not serve vault:authLogin"),
        Plugin("vault", environment=openbao.environment, authLogin="{}"),
    ):
        pass


def test_preview_calls_nobody() -> None:
    with Plugin("vault", address="https://127.0.0.1:1", token="s.none") as vault:
        identity, outputs = vault.resource(TOKEN).create({"policies": [UNKNOWN], "period": "1h"}, preview=True)
        assert identity == ""
        assert outputs["policies"] == [UNKNOWN]
        assert outputs["period"] == "1h"
        assert plain(outputs["clientToken"]) == outputs["leaseDuration"] == outputs["id"] == UNKNOWN
        assert is_secret(outputs["clientToken"])

        state = {"path": "a", "type": "kv", "description": "x", "accessor": "kv_1", "maxLeaseTtlSeconds": 60}
        outputs = vault.resource(MOUNT).update("a", state, {"path": "a", "type": "kv"}, preview=True)
        kept = {key: value for key, value in outputs.items() if value is not None}
        assert kept == {"path": "a", "type": "kv", "accessor": "kv_1", "maxLeaseTtlSeconds": 60, "id": "a"}


@pytest.mark.parametrize(
    ("kind", "inputs", "added"),
    [
        (
            MOUNT,
            {"path": "added", "type": "kv-v2"},
            {
                "allowedManagedKeys": [],
                "allowedResponseHeaders": [],
                "delegatedAuthAccessors": [],
                "options": {},
                "passthroughRequestHeaders": [],
            },
        ),
        (TOKEN, {"policies": ["a"], "period": "1h"}, {"metadata": {}}),
        (POLICY, {"name": "added", "policy": READ}, {}),
        (SECRET, {"mount": "kv", "name": "added", "dataJson": "{}"}, {}),
    ],
)
def test_what_the_first_refresh_adds(
    vault: Plugin, kv: str, kind: str, inputs: dict[str, Any], added: dict[str, Any]
) -> None:
    """Null is [] or {} then; no input changes by it, and it is no change to plan."""
    del kv
    resource = vault.resource(kind)
    checked = plain(resource.check(inputs)[0])
    identity, state = resource.create(checked)
    _, refreshed, seen = resource.read(identity, state, checked)
    assert {key: value for key, value in refreshed.items() if value != state[key]} == added
    assert [state[key] for key in added] == [None] * len(added)
    assert plain(seen) == checked
    assert resource.changes(plain(refreshed), checked) == {}
    _, again, _ = resource.read(identity, refreshed, checked)
    assert again == refreshed
    resource.delete(identity, state)


def test_mount(vault: Plugin, client: Any) -> None:
    mount = vault.resource(MOUNT)
    inputs = {"path": "m", "type": "kv-v2", "description": "keys", "maxLeaseTtlSeconds": 3600}
    identity, state = mount.create(inputs)
    assert identity == "m"
    assert state["accessor"].startswith("kv_")
    shown = ("type", "description", "options", "defaultLeaseTtlSeconds", "maxLeaseTtlSeconds", "sealWrap", "local")
    assert [state[key] for key in shown] == ["kv-v2", "keys", None, 0, 3600, False, False]
    assert mount.changes(state, inputs) == {}
    assert mount.read("m", state, inputs)[::2] == ("m", inputs)

    with pytest.raises(Refused) as refused:
        mount.create(inputs)
    assert re.fullmatch(
        r"error writing to Vault: Error making API request\.\n\nURL: POST https://\S+/v1/sys/mounts/m\n"
        r"Code: 400\. Errors:\n\n\* path is already in use at m/",
        told(vault, refused.value),
    )
    assert not str(refused.value).startswith("creating")  # nothing was made

    client.sys.tune_mount_configuration("m", description="by hand")
    _, drifted, seen = mount.read("m", state, inputs)
    assert (drifted["description"], seen["description"]) == ("by hand", "by hand")
    client.secrets.kv.v2.create_or_update_secret("key", {"a": "b"}, mount_point="m")

    moved = mount.update("m", drifted, inputs | {"path": "moved"})
    assert (moved["path"], moved["description"]) == ("moved", "keys")
    assert client.secrets.kv.v2.read_secret_version("key", mount_point="moved", raise_on_deleted_version=True)
    identity, state, _ = mount.read("m", moved, inputs | {"path": "moved"})  # the engine has its old id still
    assert identity == "moved"

    without = mount.update("moved", state, {"path": "moved", "type": "kv-v2"})
    assert without["description"] == ""
    assert without["maxLeaseTtlSeconds"] == 3600  # left out is left alone

    mount.delete("moved", state)
    assert mount.read("moved", state, inputs) == ("", {}, {})
    mount.delete("moved", state)


def test_policy(vault: Plugin, client: Any) -> None:
    policy = vault.resource(POLICY)
    client.sys.create_or_update_policy("p", 'path "old" { capabilities = ["read"] }')
    inputs = {"name": "p", "policy": READ}
    identity, state = policy.create(inputs)  # silently over what was there
    assert (identity, state["policy"]) == ("p", READ)
    assert client.sys.read_policy("p")["data"]["rules"] == READ
    with pytest.raises(Refused, match='policy "p" already exists; use terraform import'):
        policy.create(inputs | {"allowOverwrite": False})

    client.sys.delete_policy("p")
    identity, gone, seen = policy.read("p", state, inputs)
    assert (identity, gone["policy"], seen) == ("p", "", {"name": "p", "policy": ""})
    assert policy.changes(gone, inputs) == {"policy": "UPDATE"}
    policy.update("p", gone, inputs)
    assert client.sys.read_policy("p")["data"]["rules"] == READ

    policy.delete("p", state)
    assert "p" not in client.sys.list_policies()["data"]["policies"]
    with pytest.raises(Refused, match=r"URL: PUT \S+/v1/sys/policies/acl/p\nCode: 400"):
        policy.create({"name": "p", "policy": "this is no policy"})


def test_token(vault: Plugin, client: Any) -> None:
    token = vault.resource(TOKEN)
    client.sys.create_or_update_policy("b", READ)
    client.sys.create_or_update_policy("a", READ)
    inputs = {
        "policies": ["b", "a"],
        "period": "1h",
        "noParent": True,
        "displayName": "db1",
        "metadata": {"for": "db1"},
    }
    accessor, state = token.create(inputs)
    assert is_secret(state["clientToken"])
    assert state["policies"] == ["a", "b"]
    assert [state[key] for key in ("noParent", "numUses", "displayName", "renewable")] == [True, 0, "db1", True]
    assert 3590 <= state["leaseDuration"] <= 3600
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", state["leaseStarted"])
    assert token.changes(plain(state), inputs) == {}
    found = client.auth.token.lookup(plain(state["clientToken"]))["data"]
    assert (found["accessor"], found["period"], found["orphan"], found["meta"]) == (
        accessor,
        3600,
        True,
        {"for": "db1"},
    )

    identity, again, seen = token.read(accessor, state, inputs)
    assert (identity, again, seen) == (accessor, state, inputs)

    client.auth.token.revoke_accessor(accessor)
    assert token.read(accessor, state, inputs)[0] == ""
    token.delete(accessor, state)  # no error


def test_token_with_little_left_is_renewed_when_read(vault: Plugin, client: Any) -> None:
    token = vault.resource(TOKEN)
    inputs = {"policies": ["default"], "ttl": "100s", "noParent": True}
    accessor, state = token.create(inputs)
    assert state["leaseDuration"] in (99, 100)
    eager = inputs | {"renewMinLease": 3600, "renewIncrement": 5000}
    state = token.update(accessor, state, eager)

    assert state["leaseDuration"] == 0  # the plugin's own mistake
    assert 4990 <= client.auth.token.lookup(plain(state["clientToken"]))["data"]["ttl"] <= 5000
    content = plain(token.read(accessor, state, eager)[1])
    assert content["leaseDuration"] >= 4990  # enough left: not renewed
    assert content["clientToken"] == plain(state["clientToken"])
    token.delete(accessor, state)
    with pytest.raises(hvac.exceptions.Forbidden):
        client.auth.token.lookup(plain(state["clientToken"]))


def test_secret(vault: Plugin, client: Any, kv: str) -> None:
    secret, store = vault.resource(SECRET), client.secrets.kv.v2
    inputs = {"mount": kv, "name": "a/b", "dataJson": '{ "user": "u", "password": "geheim" }'}
    identity, state = secret.create(inputs)
    assert (identity, state["path"]) == ("kv/data/a/b", "kv/data/a/b")
    assert is_secret(state["dataJson"])
    assert is_secret(state["data"])
    assert plain(state["data"]) == {}
    assert plain(state["dataJson"]) == '{"password":"geheim","user":"u"}'
    assert state["metadata"]["version"] == "1"
    assert store.read_secret_version("a/b", mount_point=kv, raise_on_deleted_version=True)["data"]["data"] == {
        "user": "u",
        "password": "geheim",
    }
    found, again, seen = secret.read(identity, state, inputs)
    assert (found, again, plain(seen)) == (identity, state, inputs)

    _, state = secret.create(inputs)  # over what is there: its next version
    assert state["metadata"]["version"] == "2"
    changed = inputs | {"dataJson": '{"password": "neu"}', "customMetadata": {"maxVersions": 3, "data": {"of": "us"}}}
    state = secret.update(identity, state, changed)
    assert state["metadata"]["version"] == "3"
    assert state["customMetadata"] == {
        "maxVersions": 3, "casRequired": False, "deleteVersionAfter": 0, "data": {"of": "us"}
    }  # fmt: skip
    assert state["metadata"]["custom_metadata"] in ("null", '{"of":"us"}')
    assert secret.changes(plain(state), changed) == {}

    store.create_or_update_secret("a/b", {"password": "by hand"}, mount_point=kv)
    found, state, seen = secret.read(identity, state, changed)
    assert plain(seen)["dataJson"] == changed["dataJson"]  # seen by nobody
    assert secret.changes(plain(state), changed) == {}

    secret.delete(identity, state)  # softly
    assert secret.read(identity, state, changed)[0] == identity
    store.delete_metadata_and_all_versions("a/b", mount_point=kv)
    assert secret.read(identity, state, changed)[0] == ""

    state = secret.create(inputs)[1]
    secret.delete(identity, state | {"deleteAllVersions": True})
    with pytest.raises(hvac.exceptions.InvalidPath):
        store.read_secret_metadata("a/b", mount_point=kv)


def test_secret_errors(vault: Plugin) -> None:
    secret, inputs = vault.resource(SECRET), {"mount": "no", "name": "n", "dataJson": '{"password": "geheim"}'}
    with pytest.raises(Refused) as refused:
        secret.create(inputs)
    text = told(vault, refused.value)
    assert re.match(
        r'error writing to path "no/data/n", err=Error making API request\.\n\nURL: PUT https://\S+/v1/no/data/n\n'
        r'Code: 404\. Errors:\n\n\* no handler for route "no/data/n"',
        text,
    )
    assert "geheim" not in text
    assert refused.value.kept is None
    with pytest.raises(Refused) as refused:
        secret.delete("no/data/n", inputs)
    assert str(refused.value).startswith("deleting urn:")
    quoted = r'error deleting "no/data/n" from Vault: "Error making API request\.\\n\\nURL: DELETE https://'
    assert re.match(quoted, told(vault, refused.value))


def test_what_was_half_made_is_kept(openbao: OpenBao, client: Any, kv: str) -> None:
    """The data is written and its metadata refused: the engine must know of it, with its secrets as secrets."""
    client.sys.create_or_update_policy("half", 'path "kv/data/*" { capabilities = ["create", "update"] }')
    token = client.auth.token.create(policies=["half"])["auth"]["client_token"]
    with Plugin(
        "vault", address=openbao.address, caCertFile=str(openbao.ca), token=token, skipChildToken=True
    ) as vault:
        secret = vault.resource(SECRET)
        inputs = {"mount": kv, "name": "h", "dataJson": '{"password": "geheim"}', "customMetadata": {"maxVersions": 3}}
        with pytest.raises(Refused) as refused:
            secret.create(inputs)
        assert str(refused.value).startswith("creating urn:")  # it is there
        assert re.search(
            r"custom metadata to kv/metadata/h, err=Error making .*\* permission denied",
            told(vault, refused.value),
            re.DOTALL,
        )
        assert refused.value.kept.id == "kv/data/h"
        assert SIGNATURE in refused.value.kept.properties["dataJson"]
        assert refused.value.kept.reasons == [str(refused.value)]

        with pytest.raises(Refused, match="Code: 403") as refused:
            vault.resource(POLICY).update("p", {"name": "p", "policy": "old"}, {"name": "p", "policy": READ})
        assert str(refused.value).startswith("updating urn:")
        assert (refused.value.kept.id, refused.value.kept.properties["policy"]) == ("p", READ)
        assert token not in str(refused.value)


def test_a_child_token_is_made_unless_told_otherwise(openbao: OpenBao, client: Any) -> None:
    def children() -> int:
        accessors = client.auth.token.list_accessors()["data"]["keys"]
        names = [client.auth.token.lookup_accessor(accessor)["data"]["display_name"] for accessor in accessors]
        return names.count("token-terraform")

    before = children()
    settings: list[dict[str, Any]] = [
        {"skipChildToken": "true"},
        {"skipChildToken": True},
        {},
        {"skipChildToken": "false"},
    ]
    for setting, made in zip(settings, (0, 0, 1, 2), strict=True):
        with Plugin("vault", environment=openbao.environment, **setting) as vault, ThreadPoolExecutor() as pool:
            # The session is opened once, however many calls come first.
            list(pool.map(lambda policy: policy.read("default", {}, {}), [vault.resource(POLICY)] * 8))
        assert children() - before == made


def test_many_at_once(vault: Plugin, client: Any) -> None:
    names = [f"many-{number}" for number in range(40)]
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda name: vault.resource(POLICY).create({"name": name, "policy": READ})[0], names))
    assert made == names
    assert set(names) <= set(client.sys.list_policies()["data"]["policies"])


def test_namespace(vault: Plugin, client: Any) -> None:
    client.write_data("sys/namespaces/team")
    try:
        inputs = {"path": "n", "type": "kv-v2", "namespace": "team"}
        identity, state = vault.resource(MOUNT).create(inputs)
        assert "n/" not in client.sys.list_mounted_secrets_engines()["data"]
        assert vault.resource(MOUNT).read(identity, state, inputs)[::2] == ("n", inputs)
        vault.resource(MOUNT).delete(identity, state)
        assert vault.resource(MOUNT).read(identity, state, inputs)[0] == ""
    finally:
        client.delete("sys/namespaces/team")


@pytest.mark.parametrize("trouble", ["token", "no token", "no address", "ca", "down", "no name", "sealed"])
def test_trouble_is_told_as_the_plugin_tells_it_without_the_token(openbao: OpenBao, trouble: str) -> None:
    answered = (
        r"failed to lookup token, err=Error making API request\.\n\nURL: GET https://\S+/v1/auth/token/lookup-self\n"
    )
    unanswered = r'failed to lookup token, err=Get "https://\S+/v1/auth/token/lookup-self": '
    expected = {
        "token": answered + r"Code: 403\. Errors:\n\n\* permission denied",
        "no token": "no vault token set on Client",
        "no address": "failed to configure Vault address",
        "ca": unanswered + "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "down": unanswered + r"dial tcp 127\.0\.0\.1:\d+: connect: connection refused",
        "no name": unanswered + r"dial tcp: lookup no\.such\.invalid: no such host",
        "sealed": answered + r"Code: 503\. Errors:\n\n\* Vault is sealed",
    }[trouble]
    settings: dict[str, Any] = {
        "address": openbao.address,
        "caCertFile": str(openbao.ca),
        "token": openbao.token,
        "maxRetries": "0",
    }
    if trouble == "token":
        settings["token"] = "s.wrong"
    elif trouble == "no token":
        del settings["token"]
    elif trouble == "no address":
        del settings["address"]
    elif trouble == "ca":
        del settings["caCertFile"]
        del settings["maxRetries"]  # it is not tried again
    elif trouble == "down":
        openbao.kill()
    elif trouble == "no name":
        settings["address"] = "https://no.such.invalid:8200"
    else:
        openbao.seal()
    try:
        with Plugin("vault", **settings) as vault, pytest.raises(Refused) as refused:
            vault.resource(MOUNT).read("m", {}, {"path": "m"})
    finally:
        openbao.unseal()
    assert re.fullmatch(expected, told(vault, refused.value))
    assert str(refused.value).startswith("refreshing urn:")
    assert settings.get("token", "?") not in str(refused.value)


def test_import_finds_the_inputs(vault: Plugin, client: Any, kv: str) -> None:
    client.sys.create_or_update_policy("import", READ)
    assert vault.resource(POLICY).read("import", {}, {})[2] == {"name": "import", "policy": READ}
    inputs = vault.resource(MOUNT).read(kv, {}, {})[2]
    assert inputs == {"path": "kv", "type": "kv", "options": {"version": "2"}}


def test_json_is_compared_as_json(vault: Plugin) -> None:
    nested = {"b": [1, {"ü": None}], "a": 1.5}
    state = {"dataJson": json.dumps(nested)}
    assert vault.resource(SECRET).changes(state, {"dataJson": json.dumps(nested, indent=3, sort_keys=True)}) == {}
