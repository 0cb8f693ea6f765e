"""The stand-in for pulumi-docker, call by call, on a real dockerd: what the plugin itself was recorded to do."""

import os
import re
import secrets
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests.offline.harness import UNKNOWN, Plugin, Refused, Resource, told

NETWORK, VOLUME = "docker:index/network:Network", "docker:index/volume:Volume"
IMAGE, CONTAINER = "docker:index/remoteImage:RemoteImage", "docker:index/container:Container"
LABELS = [{"label": "b", "value": "2"}, {"label": "a", "value": "1"}]


@pytest.fixture(scope="module")
def plugin(daemon: docker.DockerClient) -> Iterator[Plugin]:
    del daemon  # it sets DOCKER_HOST
    with Plugin("docker", environment={"DOCKER_HOST": os.environ["DOCKER_HOST"]}) as plugin:
        yield plugin


@pytest.fixture
def name() -> str:
    return f"tde-plugin-{secrets.token_hex(3)}"


@pytest.fixture
def network(daemon: docker.DockerClient, name: str) -> Iterator[str]:
    """A dockerd of the tests' own has no default network."""
    made = daemon.networks.create(name)
    yield name
    made.remove()


def test_no_daemon() -> None:
    text = "docker native provider returned an unexpected error from Configure: failed to connect to any docker daemon"
    with (
        pytest.raises(Refused, match=f"^{text}$"),
        Plugin("docker", environment={"DOCKER_HOST": "unix:///no/such"}),
    ):
        pass


CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = [
    (NETWORK, {"name": "a"}, {"name": "b"}, {"name": "UPDATE_REPLACE"}),
    (NETWORK, {"name": "a", "labels": LABELS}, {"name": "a", "labels": LABELS[::-1]}, {}),
    (NETWORK, {"internal": False}, {"internal": True}, {"internal": "UPDATE_REPLACE"}),
    (NETWORK, {"labels": []}, {"labels": LABELS[:1]}, {"labels": "ADD_REPLACE"}),
    (NETWORK, {"driver": "bridge", "scope": "local", "ipamConfigs": [{"subnet": "x"}]}, {}, {}),
    (VOLUME, {"name": "a"}, {"name": "b"}, {"name": "UPDATE_REPLACE"}),
    (VOLUME, {"labels": LABELS}, {"labels": LABELS[::-1]}, {}),
    (VOLUME, {"labels": LABELS[:1]}, {}, {"labels": "DELETE_REPLACE"}),
    (IMAGE, {"name": "a"}, {"name": "b"}, {"name": "UPDATE_REPLACE"}),
    (IMAGE, {"triggers": {"a": "1"}}, {"triggers": {"a": "2"}}, {"triggers.a": "UPDATE_REPLACE"}),
    (IMAGE, {"keepLocally": True}, {"keepLocally": False}, {"keepLocally": "UPDATE"}),
    (IMAGE, {"imageId": "sha256:1", "repoDigest": ""}, {}, {}),
    *(
        (CONTAINER, {key: old}, {key: new}, {path: "UPDATE_REPLACE"})
        for key, old, new, path in (
            ("name", "a", "b", "name"),
            ("image", "sha256:1", "sha256:2", "image"),
            ("command", ["a"], ["b"], "command[0]"),
            ("entrypoints", ["a"], ["b"], "entrypoints[0]"),
            ("user", "a", "b", "user"),
            ("networkMode", "a", "b", "networkMode"),
            ("networksAdvanced", [{"name": "a"}], [{"name": "b"}], "networksAdvanced"),
            ("mounts", [{"type": "tmpfs", "target": "/a"}], [{"type": "tmpfs", "target": "/b"}], "mounts"),
            ("privileged", False, True, "privileged"),
            ("stopSignal", "SIGINT", "SIGTERM", "stopSignal"),
            ("stopTimeout", 60, 61, "stopTimeout"),
            ("shmSize", 64, 65, "shmSize"),
            ("ports", [{"internal": 1, "external": 2}], [{"internal": 1, "external": 3}], "ports[0].external"),
            (
                "volumes",
                [{"volumeName": "a", "containerPath": "/p"}],
                [{"volumeName": "b", "containerPath": "/p"}],
                "volumes",
            ),
        )
    ),
    *(
        (CONTAINER, {key: old}, {key: new}, {path: "UPDATE"})
        for key, old, new, path in (
            ("restart", "no", "always", "restart"),
            ("start", True, False, "start"),
            ("destroyGraceSeconds", 60, 61, "destroyGraceSeconds"),
            ("removeVolumes", True, False, "removeVolumes"),
            ("init", True, False, "init"),
            ("init", False, True, "init"),
            ("memory", 0, 64, "memory"),
            ("memorySwap", 128, 256, "memorySwap"),
            ("healthcheck", {"interval": "1s"}, {"interval": "2s"}, "healthcheck.interval"),
        )
    ),
    (CONTAINER, {"mustRun": False}, {"mustRun": True}, {"mustRun": "UPDATE"}),
    (CONTAINER, {"tmpfs": {"/a": ""}}, {"tmpfs": {"/b": ""}}, {'tmpfs["/a"]': "DELETE", 'tmpfs["/b"]': "ADD"}),
    (CONTAINER, {"tmpfs": {"/a": ""}}, {}, {'tmpfs["/a"]': "DELETE"}),
    (CONTAINER, {"envs": ["a=1"], "healthcheck": {"interval": "1s"}}, {}, {}),  # left out is left alone
    (CONTAINER, {"healthcheck": {"interval": "1s"}}, {"healthcheck": {"interval": "1s", "startInterval": "0s"}}, {}),
    (
        CONTAINER,
        {"ports": [{"internal": 1, "external": 32768}]},
        {"ports": [{"internal": 1, "external": 0}]},
        {"ports[0].external": "UPDATE_REPLACE"},
    ),
    (CONTAINER, {"envs": ["a=1", "b=2"]}, {"envs": ["b=2", "a=1"]}, {}),
    (CONTAINER, {"ports": []}, {"ports": [{"internal": 1, "external": 2}]}, {"ports": "ADD_REPLACE"}),
    (
        CONTAINER,
        {"command": ["c"], "entrypoints": ["e"], "hostname": "h", "user": "u", "shmSize": 64, "stopTimeout": 9},
        {},
        {},
    ),
    (CONTAINER, {"exitCode": 3, "networkDatas": [{}], "bridge": "", "labels": None, "envs": []}, {}, {}),
    (CONTAINER, {"image": "sha256:1"}, {"image": UNKNOWN}, {"image": "UPDATE_REPLACE"}),
]


@pytest.mark.parametrize(("kind", "old", "new", "expected"), CHANGES)
def test_what_a_change_means(
    plugin: Plugin, kind: str, old: dict[str, Any], new: dict[str, Any], expected: dict[str, str]
) -> None:
    assert plugin.resource(kind).changes(old, new) == expected
    answer = plugin.resource(kind).diff(old, {**new, "__defaults": []})
    replacing = {re.split(r"[.\[]", path)[0] for path, change in expected.items() if change.endswith("REPLACE")}
    assert set(answer.replaces) == replacing
    assert answer.deleteBeforeReplace == (bool(replacing) and kind != IMAGE)


def test_check_fills_in_and_refuses(plugin: Plugin) -> None:
    declared = {"image": "i", "ports": [{"internal": 1}], "healthcheck": {"tests": ["CMD", "true"]}}
    inputs, failures = plugin.resource(CONTAINER, "db1").check(declared)
    assert failures == []
    assert re.fullmatch(r"db1-[0-9a-f]{7}", inputs["name"])
    filled_in = {
        "start": True, "mustRun": True, "removeVolumes": True, "restart": "no", "networkMode": "bridge", "waitTimeout": 60,
        "containerReadRefreshTimeoutMilliseconds": 15000, "name": inputs["name"],
    }  # fmt: skip
    assert inputs == filled_in | {
        "image": "i", "ports": [{"internal": 1, "protocol": "tcp"}],
        "healthcheck": {"tests": ["CMD", "true"], "startInterval": "0s"}, "__defaults": sorted(filled_in),
    }  # fmt: skip
    assert plugin.resource(NETWORK).check({"name": "n"})[0] == {
        "name": "n", "ipamDriver": "default", "__defaults": ["ipamDriver"]
    }  # fmt: skip
    assert re.fullmatch(r"v-[0-9a-f]{7}", plugin.resource(VOLUME, "v").check({})[0]["name"])
    _, failures = plugin.resource(VOLUME).check({"name": "v", "cluster": {}})
    assert failures == ["cluster: the offline stand-in for pulumi-docker does not serve it"]


def test_a_name_that_pulumi_made_is_no_reason_to_delete_first(plugin: Plugin) -> None:
    volume = plugin.resource(VOLUME, "v")
    made, _ = volume.check({})
    assert made["__defaults"] == ["name"]
    assert not volume.diff(made, made | {"labels": LABELS}).deleteBeforeReplace
    assert volume.diff(made, made | {"labels": LABELS, "__defaults": []}).deleteBeforeReplace


def first_refresh(resource: Resource, identity: str, state: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """What it adds to `state`; it changes no input and nothing that would be planned, and the next one adds nothing."""
    _, refreshed, seen = resource.read(identity, state, inputs)
    assert seen == inputs
    assert resource.changes(refreshed, inputs) == {}
    assert resource.read(identity, refreshed, inputs) == (identity, refreshed, inputs)
    return {key: value for key, value in refreshed.items() if value != state[key]}


def test_preview_makes_nothing(plugin: Plugin, daemon: docker.DockerClient, name: str) -> None:
    identity, outputs = plugin.resource(CONTAINER).create({"name": name, "image": UNKNOWN}, preview=True)
    assert (identity, outputs["image"]) == ("", UNKNOWN)
    assert outputs["networkDatas"] == outputs["exitCode"] == outputs["hostname"] == UNKNOWN
    assert plugin.resource(IMAGE).create({"name": "no/such"}, preview=True)[1]["imageId"] == UNKNOWN
    assert not daemon.containers.list(all=True, filters={"name": name})


def test_network(plugin: Plugin, daemon: docker.DockerClient, name: str) -> None:
    network = plugin.resource(NETWORK)
    inputs = {"name": name, "labels": LABELS, "ipamDriver": "default"}
    identity, state = network.create(inputs)
    assert daemon.networks.get(identity).attrs["Labels"] == {"a": "1", "b": "2"}
    assert (state["driver"], state["scope"]) == ("bridge", "local")
    assert state["ipamConfigs"][0]["subnet"]
    assert first_refresh(network, identity, state, inputs) == {"ipamOptions": {}}
    with pytest.raises(Refused) as refused:
        network.create(inputs)
    text = f"Unable to create network: Error response from daemon: network with name {name} already exists"
    assert told(plugin, refused.value) == text
    network.delete(identity, state)
    assert network.read(identity, state, inputs)[0] == ""
    network.delete(identity, state)  # no error


def test_volume(plugin: Plugin, daemon: docker.DockerClient, name: str) -> None:
    volume = plugin.resource(VOLUME)
    there = daemon.volumes.create(name, labels={"whose": "theirs"})
    identity, state = volume.create({"name": name})  # taken over without a word
    assert (identity, state["driver"], state["mountpoint"]) == (name, "local", there.attrs["Mountpoint"])
    volume.delete(identity, state)  # and so deleted
    assert volume.read(identity, state, {"name": name})[0] == ""
    inputs = {"name": name, "labels": LABELS}
    identity, state = volume.create(inputs)
    assert first_refresh(volume, identity, state, inputs) == {"driverOpts": {}}
    volume.delete(identity, state)
    volume.delete(identity, state)  # no error


def test_image(plugin: Plugin, daemon: docker.DockerClient, image: str, name: str) -> None:
    resource = plugin.resource(IMAGE)
    other = f"{name}:1"
    daemon.images.get(image).tag(name, "1")
    inputs = {"name": other, "keepLocally": True}
    identity, state = resource.create(inputs)
    found = daemon.images.get(image).id
    assert (identity, state["imageId"], state["repoDigest"]) == (f"{found}{other}", found, "")
    assert resource.read(identity, state, inputs) == (identity, state, inputs)
    resource.delete(identity, state)
    assert daemon.images.get(other)
    resource.delete(identity, state | {"keepLocally": False})
    assert resource.read(identity, state, inputs)[0] == ""
    text = f"Unable to read Docker image into resource: unable to pull image {name}: error pulling image {name}: "
    with pytest.raises(Refused) as refused:
        resource.create({"name": name})
    assert told(plugin, refused.value).startswith(text)
    assert refused.value.kept is None


def container(name: str, image: str, *command: str, **more: Any) -> dict[str, Any]:
    made = {"name": name, "image": image, "entrypoints": ["/bin/sh"], "command": ["-c", *command], "networkMode": name}
    defaults = {"start": True, "mustRun": True, "removeVolumes": True, "restart": "no", "waitTimeout": 60}
    return defaults | made | more


def test_a_container_that_is_made_and_not_started(
    plugin: Plugin, daemon: docker.DockerClient, image: str, network: str
) -> None:
    """As the stack declares a server."""
    resource = plugin.resource(CONTAINER)
    ports = [{"internal": 5432, "external": 0, "ip": "127.0.0.1"}]
    health = {"tests": ["CMD", "true"], "interval": "10s", "timeout": "5s", "retries": 6, "startPeriod": "30s"}
    inputs = container(network, image, "exec sleep 1000", start=False, mustRun=False, ports=ports, healthcheck=health)
    inputs |= {"init": True, "stopSignal": "SIGKILL", "stopTimeout": 60, "shmSize": 100, "user": "postgres"}
    inputs |= {"restart": "unless-stopped", "destroyGraceSeconds": 60}
    identity, state = resource.create(inputs)
    attributes = daemon.containers.get(identity).attrs
    assert attributes["State"]["Status"] == "created"
    assert attributes["HostConfig"]["ShmSize"] == 100 * 1024 * 1024
    assert attributes["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert attributes["Config"]["Healthcheck"]["StartPeriod"] == 30 * 10**9
    assert (state["hostname"], state["id"]) == (identity[:12], identity)
    assert first_refresh(resource, identity, state, inputs) == {
        "dns": [], "dnsOpts": [], "dnsSearches": [], "groupAdds": [], "logOpts": {}, "storageOpts": {}, "sysctls": {}, "tmpfs": {}
    }  # fmt: skip

    live = daemon.containers.get(identity)
    live.start()
    _, running, _ = resource.read(identity, state, inputs)
    assert (running["exitCode"], running["networkDatas"][0]["networkName"]) == (None, network)
    live.stop()
    _, stopped, seen = resource.read(identity, state, inputs)
    assert (stopped["exitCode"], stopped["ports"], seen) == (137, ports, inputs)  # it need not run: no drift
    assert resource.changes(stopped, inputs) == {}

    changed = inputs | {"restart": "no", "init": False, "tmpfs": {"/t": ""}}
    noted = resource.update(identity, stopped, changed)
    assert daemon.containers.get(identity).attrs["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert daemon.containers.get(identity).attrs["HostConfig"]["Init"]  # left as it was
    assert resource.changes(noted, changed) == {}  # and only a refresh sees it
    _, found, _ = resource.read(identity, noted, changed)
    assert resource.changes(found, changed) == {"init": "UPDATE", 'tmpfs["/t"]': "ADD"}
    resource.delete(identity, stopped)
    assert resource.read(identity, state, inputs) == ("", {}, {})
    resource.delete(identity, stopped)  # no error


def test_a_container_that_must_run(plugin: Plugin, daemon: docker.DockerClient, image: str, network: str) -> None:
    resource = plugin.resource(CONTAINER)
    inputs = container(network, image, "exec sleep 1000", stopSignal="SIGKILL")
    identity, state = resource.create(inputs)
    with pytest.raises(Refused) as refused:
        resource.create(inputs)
    text = "Unable to create container: Error response from daemon: Conflict. The container name"
    assert told(plugin, refused.value).startswith(text)
    daemon.containers.get(identity).stop()
    _, stopped, seen = resource.read(identity, state, inputs)
    assert (stopped["mustRun"], stopped["exitCode"]) == (False, 137)
    assert not seen.get("mustRun")
    assert resource.changes(stopped, inputs) == {"mustRun": "UPDATE"}
    assert resource.update(identity, stopped, inputs)["mustRun"] is True
    assert daemon.containers.get(identity).status == "running"
    resource.delete(identity, state)

    identity, state = resource.create(container(network, image, "exit 3"))  # that it runs is not looked at
    daemon.containers.get(identity).wait()
    assert resource.read(identity, state, inputs)[1]["exitCode"] == 3
    resource.delete(identity, state)


def test_containers_that_are_not_made_or_not_whole(
    plugin: Plugin, daemon: docker.DockerClient, image: str, network: str, name: str
) -> None:
    resource = plugin.resource(CONTAINER)
    gone = f"{name}-gone"
    text = f"Unable to create container with image {gone}: unable to pull image {gone}: error pulling image {gone}: "
    with pytest.raises(Refused) as refused:
        resource.create(container(network, gone, "true"))
    assert told(plugin, refused.value).startswith(text)
    assert refused.value.kept is None

    advanced = [{"name": f"{name}-none"}]
    starting = container(network, image, "true") | {"entrypoints": ["/no/such"]}
    for inputs, text in (
        (starting, "^Unable to start container: Error response from daemon: "),
        (
            container(network, image, "true", networksAdvanced=advanced),
            f"^Unable to start container: .*network {name}-none not found",
        ),
        (
            container(network, image, "sleep 9", wait=True, waitTimeout=0, healthcheck={"tests": ["CMD", "false"]}),
            "^container failed to be in healthy state$",
        ),
    ):
        with pytest.raises(Refused) as refused:
            resource.create(inputs)
        assert str(refused.value).startswith("creating urn:")
        assert re.search(text, told(plugin, refused.value))
        kept = refused.value.kept
        assert kept.properties["name"] == network
        assert daemon.containers.get(kept.id)  # left, and known of
        resource.delete(kept.id, {"removeVolumes": True})
