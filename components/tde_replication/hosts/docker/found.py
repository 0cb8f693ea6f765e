"""A server's container as it is, or what is left of it."""

from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import NotFound

from tde_replication.errors import UserError
from tde_replication.hosts.docker.containers import ContainerSpec
from tde_replication.hosts.docker.daemon import daemon, instant

IMAGE, DIRECTORY = "tde-replication.image", "tde-replication.directory"
"""Labels of a volume: where the container is gone, they say what it was made of."""


@dataclass(frozen=True)
class Found:
    """The server's container, or what is left of it."""

    place: ContainerSpec
    container: str
    """Its id; empty where it is gone."""
    running: bool
    """Whether a command can run in it: not in one that is paused."""
    started_at: float
    """Seconds since the epoch, by the clock that the server sees. Docker notes it when the server may have run for a while."""
    finished_at: float
    """The end of its run before this one; 0 or less where there was none, or Docker missed it."""
    paused: bool = False
    restarting: bool = False
    """Whether Docker waits before it starts it again."""
    variables: tuple[str, ...] = ()
    """The environment variables that the image sets."""
    pid: int = 0
    """Of its main process, by Docker's own machine; 0 where it does not run."""

    @property
    def exists(self) -> bool:
        return bool(self.container)

    @property
    def run(self) -> str:
        """Tells a run of it from any other."""
        return f"{self.started_at} {self.pid}"


def find(name: str) -> Found | None:
    """The container of that name, or its volume alone; None where neither is there, and so no file."""
    with daemon() as client:
        try:
            info = client.inspect_container(name)
        except NotFound:
            return _find_volume(client, name)
    return _found(name, info)


def _found(name: str, info: dict[str, Any]) -> Found:
    mount = next((mount for mount in info["Mounts"] if mount.get("Name") == name), None)
    if mount is None:
        raise UserError(f"container {name} has no volume of its own name: this project did not make it")
    first = info["HostConfig"]["NetworkMode"]
    networks = (first, *(one for one in info["NetworkSettings"]["Networks"] if one != first))
    state = info["State"]
    return Found(
        ContainerSpec(name, info["Image"], name, mount["Destination"], networks),
        info["Id"],
        running=state["Running"] and not state["Restarting"] and not state["Paused"],
        paused=state["Paused"],
        restarting=state["Restarting"],
        started_at=instant(state["StartedAt"]),
        finished_at=instant(state["FinishedAt"]),
        variables=tuple(text.partition("=")[0] for text in info["Config"]["Env"] or []),
        pid=state["Pid"],
    )


def _find_volume(client: docker.APIClient, name: str) -> Found | None:
    try:
        labels = client.inspect_volume(name)["Labels"] or {}
    except NotFound:
        return None
    try:
        place = ContainerSpec(name, labels[IMAGE], name, labels[DIRECTORY], ("none",))
    except KeyError:
        raise UserError(f"volume {name} does not have this project's labels: this project did not make it") from None
    return Found(place, "", running=False, started_at=0, finished_at=0)
