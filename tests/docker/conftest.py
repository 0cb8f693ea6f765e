"""Every test leaves containers, volumes and networks as it found them."""

from collections.abc import Iterator

import docker
import pytest

from tests.docker.lab import BINARIES, OwnVault, things


@pytest.fixture(scope="session")
def binaries() -> str:
    """Where the image has PostgreSQL's programs."""
    return str(BINARIES)


@pytest.fixture(autouse=True)
def leaves_nothing(daemon: docker.DockerClient) -> Iterator[None]:
    before = things(daemon)
    yield
    assert {one for one in things(daemon) if OwnVault.name not in one} <= before
