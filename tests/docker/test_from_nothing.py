"""What a newcomer types for a cluster in containers: `make up STACK=docker` and `make destroy STACK=docker`, with the stack
file as it comes."""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import docker
import pytest
import yaml
from docker.errors import ImageNotFound

from bootstrap.project import HERE
from bootstrap.vault import VaultError
from bootstrap.vault_container import ContainerVault
from tde_replication.hosts.account import service_account
from tests.bootstrap import clone as clones
from tests.bootstrap.clone import Clone
from tests.docker.lab import PERCONAS, OwnVault, things
from tests.engine.workspace import eventually
from tests.openbao import private_directory

STACK = "STACK=docker"
PRIMARY, STANDBY = "tde-docker-db1", "tde-docker-db2"
VAULT = ContainerVault.name


@pytest.fixture
def perconas(daemon: docker.DockerClient, image: str) -> Iterator[None]:
    """The image that the stack file names: Percona's own where it is there, else ours, under its name."""
    if [one for one in things(daemon) if "tde-docker" in one]:
        pytest.skip("`make up STACK=docker` DID NOT RUN: this dockerd has such a cluster already")
    file = HERE.root / "stacks" / "Pulumi.docker.yaml"
    cluster = yaml.safe_load(file.read_text())["config"]["tde-replication:cluster"]
    [name] = {one["host"]["docker"] for one in cluster["servers"].values()}
    try:
        daemon.images.get(name)
    except ImageNotFound:
        daemon.images.get(image).tag(name)
        yield
        daemon.images.remove(name)
    else:
        yield


@pytest.fixture
def clone(perconas: None) -> Iterator[Clone]:
    del perconas
    with clones.clone(STACK) as made:
        yield made


def psql(daemon: docker.DockerClient, container: str, query: str) -> str:
    """As docs/hosts.md says that one asks a server by hand."""
    command = [f"{PERCONAS}/bin/psql", "-h", "/tmp", "-XAtc", query]
    status, output = daemon.containers.get(container).exec_run(command, user="postgres")
    text = cast("bytes", output).decode()
    assert status == 0, text
    return text.strip()


def port(daemon: docker.DockerClient, container: str) -> dict[str, str]:
    [published] = daemon.containers.get(container).attrs["HostConfig"]["PortBindings"]["5432/tcp"]
    return cast("dict[str, str]", published)


def test_up_again_drift_and_destroy(clone: Clone, daemon: docker.DockerClient) -> None:
    before, files = things(daemon), clone.files()

    first = clone.make("up", STACK)
    summary = first[first.index("docker: 1 primary, 1 standby, streaming") :]
    assert "encrypted by pg_tde" in summary.splitlines()[0]
    assert f"make destroy {STACK}" in summary
    told = [{"HostIp": "127.0.0.1", "HostPort": port} for port in re.findall(r"127\.0\.0\.1:(\d+)", summary)]
    assert [port(daemon, name) for name in (PRIMARY, STANDBY)] == told
    assert things(daemon) - before >= {
        *(f"container {name}" for name in (PRIMARY, STANDBY, VAULT)),
        *(f"volume {name}" for name in (PRIMARY, STANDBY)),
        *(f"network {name}" for name in ("tde-docker", VAULT)),
    }

    ask = partial(psql, daemon)
    assert ask(PRIMARY, "SELECT state FROM pg_stat_replication") == "streaming"
    ask(PRIMARY, "CREATE TABLE t USING tde_heap AS SELECT 42 AS a")
    assert ask(PRIMARY, "SELECT pg_tde_is_encrypted('t'::regclass)") == "t"
    eventually(lambda: ask(STANDBY, "SELECT to_regclass('t') IS NOT NULL") == "t")
    assert ask(STANDBY, "SELECT a FROM t") == "42"

    again = clone.make("up", STACK)
    assert re.search(r"Resources:\n\s+\d+ unchanged\n", again), again
    assert "no drift: " in clone.make("drift", STACK)

    clone.make("destroy", STACK)
    clone.gone()
    assert things(daemon) == before
    assert clone.files() == files


@pytest.fixture
def roots() -> Iterator[list[Path]]:
    made = [private_directory(), private_directory()]
    yield made
    for root in made:
        shutil.rmtree(root, ignore_errors=True)


def test_the_vault_of_another_checkout_is_left(daemon: docker.DockerClient, roots: list[Path]) -> None:
    class Named(ContainerVault):
        name = f"{OwnVault.name}-two"

    one, other = (Named(root, service_account()) for root in roots)
    one.start()
    try:
        with pytest.raises(
            VaultError, match=rf"has a container {Named.name} of another checkout \(its Vault is {one.directory}\)"
        ):
            other.start()
        other.remove()
        assert one.running()
        assert {f"container {Named.name}", f"network {Named.name}"} <= things(daemon)
    finally:
        one.remove()
    assert not [thing for thing in things(daemon) if Named.name in thing]
