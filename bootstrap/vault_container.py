"""The Vault of stack ``docker``: the embedded default's, in a container that servers in containers reach by its name.

    python -m bootstrap.vault_container start|stop|env|status|remove

Its files lie on this machine and are mounted where they are, and so is the program: the image is empty, none is pulled. It is
on a network of its own, which the stack's servers join (``vault: {network: …, addressFromServers: …}`` in the stack file).
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Ulimit
from requests.exceptions import RequestException

from bootstrap.vault import ACTIVE, PATIENCE, Vault, VaultError, main
from bootstrap.vault_process import ARGUMENTS

PORT, CLUSTER_PORT = 8200, 8201
IMAGE = "tde-replication/empty:1"
LABEL = "tde-replication.vault"
"""What container and network of this module have: its value is the directory of the Vault that they are for, so that those of
another checkout on the same dockerd are told from ours."""


class ContainerVault(Vault):
    name = "tde-docker-vault"
    """Of its container, and of the network that this is on."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("localhost", self.name)

    def configuration(self, port: int, cluster_port: int) -> dict[str, Any]:
        found = super().configuration(port, cluster_port)
        found["listener"]["tcp"] |= {"address": f"0.0.0.0:{PORT}", "cluster_address": f"127.0.0.1:{CLUSTER_PORT}"}
        return found | {"cluster_addr": f"https://127.0.0.1:{CLUSTER_PORT}"}

    @property
    def labels(self) -> dict[str, str]:
        return {LABEL: str(self.directory)}

    def remove(self) -> None:
        """Delete it with all it holds; its container and network too. Another's of the same name stay."""
        super().remove()
        with _daemon() as client:
            for kind in (client.containers, client.networks):
                if (found := self._named(kind)) and self._is_ours(found):
                    _discard(found)
            with suppress(APIError):  # it does not exist, or another checkout's Vault uses it
                client.images.remove(IMAGE)

    def _make(self) -> None:
        super()._make()
        # It was mounted under the name that the directory had while it was unfinished.
        self.kill()
        self._launch(self.directory, ACTIVE)

    def _launch(self, directory: Path, wanted: int) -> None:
        port = int(json.loads((directory / "server.json").read_text())["api_addr"].rpartition(":")[2])
        with _daemon() as client:
            for kind in (client.containers, client.networks):
                if (found := self._named(kind)) and not self._is_ours(found):
                    raise VaultError(self._whose(found))
            if container := self._named(client.containers):
                _discard(container)
            if not self._named(client.networks):
                client.networks.create(self.name, labels=self.labels, check_duplicate=True)
            _have_empty_image(client)
            container = client.containers.create(
                IMAGE,
                list(ARGUMENTS),
                entrypoint=["/bao"],
                name=self.name,
                labels=self.labels,
                user=f"{self.account.uid}:{self.account.gid}",
                working_dir=str(directory),
                volumes={
                    str(directory): {"bind": str(directory), "mode": "rw"},
                    str(self._binary(directory)): {"bind": "/bao", "mode": "ro"},
                },
                ports={f"{PORT}/tcp": ("127.0.0.1", port)},
                network=self.name,
                ulimits=[Ulimit(name="core", soft=0, hard=0)],  # every key would be in a core dump
            )
            container.start()

            def ended() -> bool:
                container.reload()
                return bool(container.status != "running")

            if not self._answers(wanted, ended, directory=directory):
                lines = [line for line in container.logs().decode(errors="replace").splitlines() if "rror" in line]
                cause = lines[-1].strip() if lines else f"it did not answer within {PATIENCE:.0f} s"
                raise VaultError(f"OpenBao did not start: {cause}. Its log: docker logs {self.name}")

    def _named(self, kind: Any) -> Any:
        """The container or network with our name, or None."""
        with suppress(NotFound):
            return kind.get(self.name)

    def _is_ours(self, found: Any) -> bool:
        return _label(found) == str(self.directory)

    def _whose(self, found: Any) -> str:
        what = f"docker has a {type(found).__name__.lower()} {self.name}"
        if directory := _label(found):
            return f"{what} of another checkout (its Vault is {directory}): `make destroy STACK=docker` there first"
        return f"{what} that was not made here: remove it first"


def _label(found: Any) -> str | None:
    """The value of `LABEL`, where it has that."""
    labels: dict[str, str] = (found.attrs.get("Config") or found.attrs).get("Labels") or {}
    return labels.get(LABEL)


@contextmanager
def _daemon() -> Iterator[Any]:
    try:
        with closing(docker.from_env(timeout=120)) as client:
            yield client
    except (DockerException, RequestException) as error:
        raise VaultError(f"docker: {error}") from None


def _discard(found: Any) -> None:
    if isinstance(found, Container):
        found.remove(force=True, v=True)
    else:
        found.remove()


def _have_empty_image(client: Any) -> None:
    try:
        client.images.get(IMAGE)
    except ImageNotFound:
        archive = io.BytesIO()
        tarfile.open(fileobj=archive, mode="w").close()
        repository, _, tag = IMAGE.partition(":")
        client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)


if __name__ == "__main__":
    main(sys.argv[1:], ContainerVault, "docker")
