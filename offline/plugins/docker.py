"""Stand-in for pulumi-docker: Network, Volume, RemoteImage and Container, on a real dockerd through Docker's own SDK.

What each does, with its quirks, is what terraform-provider-docker does, since that is what the plugin itself consists of. It is
started by the engine: docker.py <address of the engine>.
"""

import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

# Not this directory: this file is not the package of its name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import docker  # noqa: E402
from docker import utils  # noqa: E402
from docker.errors import APIError, DockerException, ImageNotFound, NotFound  # noqa: E402
from docker.types import Healthcheck, Mount, Ulimit  # noqa: E402

from offline.plugins.base import Found, IncompleteError, Input, Plugin, PluginError, Resource, serve  # noqa: E402
from offline.plugins.protocol import Properties  # noqa: E402

IN_USE_SECONDS = 30
MEBIBYTE = 1024 * 1024
UPDATED = ("restart", "maxRetryCount", "memory", "memorySwap")
NEVER = "0s"
NANOSECONDS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}


def _told(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give dockerd's refusal to the person as the plugin words it."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*arguments: Any) -> Any:
            try:
                return method(*arguments)
            except (DockerException, OSError) as error:
                raise PluginError(f"{what}: {_worded(error)}") from error

        return call

    return decorate


def _worded(error: Exception) -> str:
    return f"Error response from daemon: {error.explanation}" if isinstance(error, APIError) else str(error)


class DockerResource(Resource):
    def __init__(self, client: Any) -> None:
        """`client` is the SDK's APIClient, whose types leave half of it out."""
        self._client = client

    def _pull(self, name: str, platform: str | None = None) -> None:
        """Unless it is here: a local image needs no registry."""
        try:
            self._client.inspect_image(name)
        except ImageNotFound:
            try:
                self._client.pull(*_repository(name), platform=platform)
            except DockerException as error:
                text = f"unable to pull image {name}: error pulling image {name}: {_worded(error)}"
                raise PluginError(text) from error


class Network(DockerResource):
    inputs: ClassVar = {
        "name": Input(replaces=True),
        "driver": Input(replaces=True, computed=True),
        "internal": Input(replaces=True, computed=True),
        "ipamDriver": Input(replaces=True, default="default"),
        "labels": Input(replaces=True, canonical=lambda labels: _by_key(labels, "label")),
    }
    outputs = ("scope", "ipamConfigs")
    emptied: ClassVar = {"ipamOptions": {}}
    named_by = "name"

    @_told("Unable to create network")
    def create(self, inputs: Properties) -> Found:
        made = self._client.create_network(
            inputs["name"],
            driver=inputs.get("driver") or "bridge",
            internal=bool(inputs.get("internal")),
            labels=_mapping(inputs.get("labels")),
            check_duplicate=True,
        )
        return Found(made["Id"], {})

    @_told("Unable to inspect network")
    def read(self, identity: str, state: Properties) -> Found | None:
        try:
            found = self._client.inspect_network(identity)
        except NotFound:
            return None
        ipam = [
            {"subnet": one.get("Subnet"), "gateway": one.get("Gateway")} for one in found["IPAM"].get("Config") or []
        ]
        live = {
            "name": found["Name"],
            "driver": found["Driver"],
            "internal": found["Internal"],
            "scope": found["Scope"],
            "ipamConfigs": ipam,
            "labels": _listing(found["Labels"], "label"),
        }
        return Found(found["Id"], state | live)

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        del inputs, old
        return Found(identity, {})

    @_told("Unable to remove network")
    def delete(self, identity: str, state: Properties) -> None:
        del state
        _remove_unused(lambda: self._client.remove_network(identity), {403, 409})


class Volume(DockerResource):
    inputs: ClassVar = {
        "name": Input(replaces=True),
        "driver": Input(replaces=True, computed=True),
        "driverOpts": Input(replaces=True),
        "labels": Input(replaces=True, canonical=lambda labels: _by_key(labels, "label")),
    }
    outputs = ("mountpoint",)
    emptied: ClassVar = {"driverOpts": {}}
    named_by = "name"

    @_told("Unable to create volume")
    def create(self, inputs: Properties) -> Found:
        """Make it, or take one of that name over without a word: so does the plugin."""
        self._client.create_volume(
            inputs["name"], inputs.get("driver") or "local", inputs.get("driverOpts"), _mapping(inputs.get("labels"))
        )
        return Found(inputs["name"], {})

    @_told("Unable to inspect volume")
    def read(self, identity: str, state: Properties) -> Found | None:
        try:
            found = self._client.inspect_volume(identity)
        except NotFound:
            return None
        live = {
            "name": found["Name"],
            "driver": found["Driver"],
            "mountpoint": found["Mountpoint"],
            "labels": _listing(found["Labels"], "label"),
        }
        return Found(identity, state | live)

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        del inputs, old
        return Found(identity, {})

    @_told("Unable to remove volume")
    def delete(self, identity: str, state: Properties) -> None:
        del state
        _remove_unused(lambda: self._client.remove_volume(identity), {409})


class RemoteImage(DockerResource):
    inputs: ClassVar = {
        "name": Input(replaces=True),
        "triggers": Input(replaces=True),
        "pullTriggers": Input(replaces=True),
        "platform": Input(replaces=True),
        "keepLocally": Input(),
        "forceRemove": Input(),
    }
    outputs = ("imageId", "repoDigest")

    @_told("Unable to read Docker image into resource")
    def create(self, inputs: Properties) -> Found:
        name = inputs["name"]
        try:
            self._pull(name, inputs.get("platform"))
        except PluginError as error:
            raise PluginError(f"Unable to read Docker image into resource: {error}") from error
        return Found(name, {})

    @_told("Unable to read Docker image into resource")
    def read(self, identity: str, state: Properties) -> Found | None:
        del identity
        try:
            found = self._client.inspect_image(state["name"])
        except ImageNotFound:
            return None
        repository = state["name"].rpartition("/")[2].partition(":")[0]
        digests = [text for text in found.get("RepoDigests") or [] if f"{repository}@" in text]
        live = {"imageId": found["Id"], "repoDigest": digests[0] if digests else ""}
        return Found(found["Id"] + state["name"], state | live)

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        del inputs, old
        return Found(identity, {})

    @_told("Unable to remove Docker image")
    def delete(self, identity: str, state: Properties) -> None:
        del identity
        if not state.get("keepLocally"):
            try:
                self._client.remove_image(state["name"], force=bool(state.get("forceRemove")))
            except ImageNotFound:
                return


def _ports(declared: list[Properties] | None) -> list[Properties]:
    return [{"protocol": "tcp", "ip": "0.0.0.0"} | port for port in declared or []]  # noqa: S104


class Container(DockerResource):
    inputs: ClassVar = {
        **{name: Input(replaces=True) for name in ("name", "image", "privileged")},
        **{
            name: Input(replaces=True, computed=True)
            for name in (
                "command",
                "entrypoints",
                "hostname",
                "user",
                "workingDir",
                "shmSize",
                "stopSignal",
                "stopTimeout",
            )
        },
        "networkMode": Input(replaces=True, default="bridge"),
        "networksAdvanced": Input(replaces=True, whole=True, canonical=lambda networks: _by_key(networks, "name")),
        "envs": Input(replaces=True, computed=True, canonical=sorted),
        "labels": Input(replaces=True, computed=True, canonical=lambda labels: _by_key(labels, "label")),
        "ports": Input(replaces=True, canonical=_ports),
        "volumes": Input(replaces=True, whole=True, canonical=lambda volumes: _by_key(volumes, "containerPath")),
        "mounts": Input(replaces=True, whole=True, canonical=lambda mounts: _by_key(mounts, "target")),
        "tmpfs": Input(canonical=lambda places: {place: options or "defaults" for place, options in places.items()}),
        "healthcheck": Input(computed=True, canonical=lambda check: {k: v for k, v in check.items() if v != NEVER}),
        **{name: Input() for name in ("maxRetryCount", "memory", "memorySwap", "destroyGraceSeconds", "wait")},
        "restart": Input(default="no"),
        "start": Input(default=True),
        "mustRun": Input(default=True),
        "removeVolumes": Input(default=True),
        "waitTimeout": Input(default=60),
        "containerReadRefreshTimeoutMilliseconds": Input(default=15000),
        "init": Input(computed=True),
        "ulimits": Input(replaces=True, canonical=lambda limits: _by_key(limits, "name")),
    }
    outputs = ("exitCode", "networkDatas", "bridge", "containerLogs")
    emptied: ClassVar = {
        **{key: [] for key in ("dns", "dnsOpts", "dnsSearches", "groupAdds")},
        **{key: {} for key in ("logOpts", "storageOpts", "sysctls", "tmpfs")},
    }
    noted = ("init", "tmpfs")
    delete_before_replace = True
    named_by = "name"

    def fill(self, inputs: Properties) -> Properties:
        if isinstance(ports := inputs.get("ports"), list):
            inputs["ports"] = [{"protocol": "tcp", **port} if isinstance(port, Mapping) else port for port in ports]
        if isinstance(check := inputs.get("healthcheck"), Mapping):
            inputs["healthcheck"] = {"startInterval": NEVER, **check}
        return inputs

    @_told("Unable to create container")
    def create(self, inputs: Properties) -> Found:
        client, networks = self._client, inputs.get("networksAdvanced") or []
        try:
            self._pull(inputs["image"])
        except PluginError as error:
            raise PluginError(f"Unable to create container with image {inputs['image']}: {error}") from error
        made = client.create_container(
            inputs["image"],
            inputs.get("command"),
            name=inputs["name"],
            hostname=inputs.get("hostname"),
            user=inputs.get("user"),
            working_dir=inputs.get("workingDir"),
            entrypoint=inputs.get("entrypoints"),
            environment=inputs.get("envs"),
            labels=_mapping(inputs.get("labels")),
            ports=[(port["internal"], port["protocol"]) for port in _ports(inputs.get("ports"))],
            detach=True,
            stop_signal=inputs.get("stopSignal"),
            stop_timeout=inputs.get("stopTimeout"),
            healthcheck=_healthcheck(inputs.get("healthcheck")),
            host_config=self._host_config(inputs),
        )["Id"]
        step = "disconnect the default network"
        try:
            # The plugin connects to networks after it made the container, and leaves the default one.
            if networks and inputs["networkMode"] == "bridge":
                client.disconnect_container_from_network(made, "bridge")
            for network in networks:
                step = f"connect to network '{network['name']}'"
                client.connect_container_to_network(made, network["name"], aliases=network.get("aliases"))
            if inputs["start"]:
                step = "start container"
                client.start(made)
                if inputs.get("wait"):
                    self._wait(made, inputs["waitTimeout"])
        except (DockerException, PluginError) as error:
            found = self.read(made, inputs)
            text = str(error) if isinstance(error, PluginError) else f"Unable to {step}: {_worded(error)}"
            raise IncompleteError(text, made, found.outputs if found else inputs) from error
        return Found(made, {})

    def _host_config(self, inputs: Properties) -> Any:
        bindings = {
            f"{port['internal']}/{port['protocol']}": [(port["ip"], port.get("external"))]
            for port in _ports(inputs.get("ports"))
        }
        return self._client.create_host_config(
            port_bindings=bindings,
            network_mode=inputs["networkMode"],
            restart_policy={"Name": inputs["restart"], "MaximumRetryCount": inputs.get("maxRetryCount") or 0},
            binds=[
                f"{one.get('volumeName') or one.get('hostPath')}:{one['containerPath']}"
                + (":ro" if one.get("readOnly") else "")
                for one in inputs.get("volumes") or []
            ],
            mounts=[
                Mount(one["target"], one.get("source"), type=one["type"], read_only=bool(one.get("readOnly")))
                for one in inputs.get("mounts") or []
            ],
            tmpfs=inputs.get("tmpfs"),
            init=inputs.get("init"),
            privileged=bool(inputs.get("privileged")),
            shm_size=f"{inputs['shmSize']}m" if inputs.get("shmSize") else None,
            mem_limit=f"{inputs['memory']}m" if inputs.get("memory") else None,
            memswap_limit=_swap(inputs),
            ulimits=[
                Ulimit(name=one["name"], soft=one["soft"], hard=one["hard"]) for one in inputs.get("ulimits") or []
            ],
        )

    def _wait(self, made: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._client.inspect_container(made)["State"].get("Health", {}).get("Status") != "healthy":
            if time.monotonic() > deadline:
                raise PluginError("container failed to be in healthy state")
            time.sleep(0.2)

    @_told("Unable to inspect container")
    def read(self, identity: str, state: Properties) -> Found | None:
        try:
            found = self._client.inspect_container(identity)
        except NotFound:
            return None
        config, host, live = found["Config"], found["HostConfig"], found["State"]
        running = live["Running"]
        published = found["NetworkSettings"]["Ports"] or {}
        ports = [
            {"internal": int(key.partition("/")[0]), "external": int(one["HostPort"]), "ip": one["HostIp"]}
            | {"protocol": key.partition("/")[2]}
            for key, bindings in published.items()
            for one in bindings or []
        ]
        known = {
            "name": found["Name"].lstrip("/"),
            "image": state.get("image") if self._same_image(state, found["Image"]) else found["Image"],
            "hostname": config["Hostname"],
            "workingDir": config["WorkingDir"],
            "shmSize": host["ShmSize"] // MEBIBYTE,
            "memory": host["Memory"] // MEBIBYTE,
            "memorySwap": host["MemorySwap"] // MEBIBYTE if host["MemorySwap"] > 0 else host["MemorySwap"],
            "command": config["Cmd"],
            "entrypoints": config["Entrypoint"],
            "user": config["User"],
            "envs": state.get("envs") or [],
            "networkMode": host["NetworkMode"],
            # As declared while they stand: what is not set reads as its default.
            # One that need not run has none while it is stopped.
            "ports": _like(state.get("ports"), ports) if running or state.get("mustRun") else state.get("ports"),
            "labels": state.get("labels") or [],
            "tmpfs": host.get("Tmpfs") or {},
            "restart": host["RestartPolicy"]["Name"] or "no",
            "maxRetryCount": host["RestartPolicy"]["MaximumRetryCount"],
            "privileged": host["Privileged"],
            "wait": state.get("wait") or False,
            "init": bool(host.get("Init")),
            "stopSignal": config.get("StopSignal"),
            "stopTimeout": config.get("StopTimeout") or 0,
            # Only what should run can be missing.
            "mustRun": running if state.get("mustRun") else state.get("mustRun"),
            "exitCode": None if running else live["ExitCode"],
            "networkDatas": [
                {"networkName": name, "ipAddress": one["IPAddress"], "gateway": one["Gateway"]}
                | {"macAddress": one["MacAddress"], "ipPrefixLength": one["IPPrefixLen"]}
                | {"ipv6Gateway": one["IPv6Gateway"], "globalIpv6Address": one["GlobalIPv6Address"]}
                | {"globalIpv6PrefixLength": one["GlobalIPv6PrefixLen"]}
                for name, one in found["NetworkSettings"]["Networks"].items()
            ],
        }
        return Found(found["Id"], state | known)

    def _same_image(self, state: Properties, live: str) -> bool:
        try:
            return bool(self._client.inspect_image(state.get("image") or live)["Id"] == live)
        except ImageNotFound:
            return state.get("image") == live

    @_told("Unable to update a container")
    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        """Restart policy and memory apply; tmpfs, healthcheck and init leave the container as it was: so does the plugin."""
        if inputs.get("mustRun") and not old.get("mustRun") and inputs["start"]:
            try:
                self._client.start(identity)
            except DockerException as error:
                raise PluginError(f"Unable to start container: {_worded(error)}") from error
        if any((inputs.get(name) or None) != (old.get(name) or None) for name in UPDATED):
            policy = {"Name": inputs["restart"], "MaximumRetryCount": inputs.get("maxRetryCount") or 0}
            more = {"mem_limit": f"{inputs['memory']}m"} if inputs.get("memory") else {}
            if (swap := _swap(inputs)) is not None:
                more["memswap_limit"] = swap
            self._client.update_container(identity, restart_policy=policy, **more)
        return Found(identity, {})

    @_told("Unable to remove container")
    def delete(self, identity: str, state: Properties) -> None:
        try:
            if grace := state.get("destroyGraceSeconds"):
                self._client.stop(identity, timeout=int(grace))
            self._client.remove_container(identity, v=bool(state.get("removeVolumes")), force=True)
        except NotFound:
            return


def _swap(inputs: Properties) -> Any:
    """For memory and swap together; -1 is without a limit."""
    swap = inputs.get("memorySwap")
    return f"{swap}m" if swap and swap > 0 else swap or None


def _like(declared: list[Properties] | None, live: list[Properties]) -> list[Properties]:
    """The declared ports where they are as declared, else the live ones."""
    one, other = (sorted(sorted(port.items()) for port in _ports(ports)) for ports in (declared, live))
    return list(declared or []) if one == other else live


def _remove_unused(remove: Callable[[], None], busy: set[int]) -> None:
    """Remove it once nothing uses it: waits as long as the plugin does, and fails as it does."""
    deadline = time.monotonic() + IN_USE_SECONDS
    while True:
        try:
            remove()
        except NotFound:
            return
        except APIError as error:
            if error.status_code not in busy:
                raise
            if time.monotonic() > deadline:
                raise PluginError(
                    f"timeout while waiting for state to become 'removed' (last state: 'in_use', timeout: {IN_USE_SECONDS}s)"
                ) from error
            time.sleep(0.5)
        else:
            return


def _healthcheck(declared: Properties | None) -> Healthcheck | None:
    if not declared:
        return None
    interval, timeout, start = (
        _duration(declared.get(name) or "0s") for name in ("interval", "timeout", "startPeriod")
    )
    retries = declared.get("retries") or 0
    return Healthcheck(test=declared["tests"], retries=retries, interval=interval, timeout=timeout, start_period=start)


def _duration(text: str) -> int:
    """Go's duration, of one unit ("10s"), in nanoseconds."""
    number = text.rstrip("nsumh")
    return int(float(number) * NANOSECONDS[text[len(number) :]])


def _repository(name: str) -> tuple[str, str | None]:
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "latest")


def _mapping(labels: list[Properties] | None) -> dict[str, str]:
    return {one["label"]: one["value"] for one in labels or []}


def _listing(labels: Mapping[str, str] | None, key: str) -> list[Properties]:
    return [{key: name, "value": value} for name, value in sorted((labels or {}).items())]


def _by_key(items: list[Properties] | None, key: str) -> list[Properties]:
    """Terraform's sets have no order."""
    return sorted(items or [], key=lambda item: str(item.get(key)))


class Docker(Plugin):
    name = "docker"

    def configure(self, settings: Properties) -> Mapping[str, Resource]:
        try:
            client = docker.APIClient(version="auto", timeout=120, **_connection(settings))
        except DockerException as error:
            raise PluginError(
                "docker native provider returned an unexpected error from Configure: failed to connect to any docker daemon"
            ) from error
        return {
            "docker:index/network:Network": Network(client),
            "docker:index/volume:Volume": Volume(client),
            "docker:index/remoteImage:RemoteImage": RemoteImage(client),
            "docker:index/container:Container": Container(client),
        }


def _connection(settings: Properties) -> dict[str, Any]:
    if settings.get("host"):
        return {"base_url": settings["host"]}
    return dict(utils.kwargs_from_env())


if __name__ == "__main__":
    serve(Docker())
