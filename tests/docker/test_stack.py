"""Clusters in containers by the real engine, from nothing to destroy."""

import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest

from components.hosts.docker import DockerHost
from tests.docker.lab import Contained, OwnVault, helpers
from tests.docker.test_host import DATA, eventually
from tests.engine.workspace import Workspace

# Docker's SDK leaves a socket open that could not be connected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket.*family=1:ResourceWarning")


class Containers:
    """A stack with servers db1 (the primary) and db2 … in containers."""

    def __init__(
        self, workspace: Workspace, daemon: docker.DockerClient, image: str, binaries: str, count: int
    ) -> None:
        self.workspace = workspace
        self.daemon = daemon
        servers = [{"name": f"db{n + 1}", "host": {"docker": image}, "binaries": binaries} for n in range(count)]
        vault = {"network": OwnVault.name, "addressFromServers": Contained.seen_from_servers}
        workspace.write({"disposable": True, "vault": vault, "primary": servers[0], "standbys": servers[1:]})

    def name(self, server: str) -> str:
        return f"tde-{self.workspace.stack}-{server}"

    def container(self, server: str) -> Any:
        return self.daemon.containers.get(self.name(server))

    def sql(self, server: str, query: str) -> list[tuple[Any, ...]]:
        with DockerHost(f"docker://{self.name(server)}").connect(DATA, "postgres") as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def streaming(self) -> list[tuple[Any, ...]]:
        return self.sql("db1", "SELECT slot_name FROM pg_replication_slots WHERE active ORDER BY 1")


@pytest.fixture
def make(
    tmp_path: Path, daemon: docker.DockerClient, image: str, binaries: str, contained_bao: Contained
) -> Iterator[Callable[[int], Containers]]:
    made: list[Containers] = []

    def new(count: int) -> Containers:
        stack = f"test-{secrets.token_hex(3)}"
        (tmp_path / stack).mkdir()
        workspace = Workspace(tmp_path / stack, stack, contained_bao.environment)
        workspace.init()
        made.append(Containers(workspace, daemon, image, binaries, count))
        return made[-1]

    yield new
    for one in made:
        done = one.workspace.destroy()
        assert done.code == 0, done.errors or done.text
    eventually(lambda: not any(helpers(daemon, name) for one in made for name in (one.name("db1"), one.name("db2"))))


def test_a_container_that_ends_or_goes_is_made_again_around_its_data(make: Callable[[int], Containers]) -> None:
    cluster = make(2)
    workspace = cluster.workspace
    workspace.up_well()

    assert cluster.streaming() == [("tde_db2",)]
    cluster.sql("db1", "CREATE TABLE kept USING tde_heap AS SELECT 1 AS one")
    eventually(lambda: cluster.sql("db2", "SELECT to_regclass('kept') IS NOT NULL") == [(True,)])

    assert cluster.sql("db1", "SELECT key_name FROM pg_tde_default_key_info()") == [
        (f"{workspace.stack}-principal-key",)
    ]

    container = cluster.container("db1").attrs
    [published] = container["HostConfig"]["PortBindings"].values()
    assert [one["HostIp"] for one in published] == ["127.0.0.1"]
    assert f"port={published[0]['HostPort']}" in workspace.output("primaryDsn")
    assert container["Config"]["StopSignal"] == "SIGINT"
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    eventually(lambda: cluster.container("db1").attrs["State"]["Health"]["Status"] == "healthy", seconds=40)

    def stopped() -> None:
        cluster.container("db2").stop()

    def killed() -> None:
        cluster.container("db1").kill()

    def removed() -> None:
        cluster.container("db1").remove(force=True, v=True)

    for break_it, server, plan in (
        (stopped, "db2", {"Server db2": "update"}),
        (killed, "db1", {"Server db1": "update"}),
        (removed, "db1", {"Container db1": "create", "Server db1": "update"}),
    ):
        identifier = cluster.sql(server, "SELECT system_identifier FROM pg_control_system()")
        break_it()
        planned = workspace.preview().plan
        assert plan.items() <= planned.items(), break_it.__name__
        assert not {"DataDirectory db1", "BaseBackup db2", "Volume db1", "Volume db2"} & planned.keys()
        assert {name for name in planned if name.startswith("Container ")} <= plan.keys(), break_it.__name__
        workspace.up_well()
        assert cluster.sql(server, "SELECT system_identifier FROM pg_control_system()") == identifier
        eventually(lambda: cluster.streaming() == [("tde_db2",)])
    workspace.unchanged()
    assert cluster.sql("db2", "SELECT one FROM kept") == [(1,)]


def test_clusters_side_by_side_do_not_meet(make: Callable[[int], Containers]) -> None:
    clusters = [make(1), make(1)]
    with ThreadPoolExecutor() as pool:
        assert [done.code for done in pool.map(lambda one: one.workspace.up(), clusters)] == [0, 0]
    found = {tuple(one.sql("db1", "SELECT system_identifier FROM pg_control_system()")) for one in clusters}
    assert len(found) == 2
    ports = {re.findall(r"port=(\d+)", one.workspace.output("primaryDsn"))[0] for one in clusters}
    assert len(ports) == 2
    assert clusters[0].workspace.destroy().code == 0
    assert clusters[1].sql("db1", "SELECT 1") == [(1,)]
    clusters[1].workspace.unchanged()


def test_a_volume_of_somebody_else_is_refused_at_preview(
    make: Callable[[int], Containers], daemon: docker.DockerClient
) -> None:
    cluster = make(1)
    volume = daemon.volumes.create(cluster.name("db1"))
    for done in (cluster.workspace.preview(), cluster.workspace.up()):
        assert done.code != 0
        assert f"docker has a volume {cluster.name('db1')} that this stack did not make" in done.text
    assert daemon.volumes.get(cluster.name("db1"))
    volume.remove()


def test_mistakes_are_told_at_preview(make: Callable[[int], Containers], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = make(1)
    workspace = cluster.workspace
    declared = workspace.cluster
    bare = {key: value for key, value in declared["primary"].items() if key != "binaries"}
    workspace.write(declared | {"primary": bare})
    assert "cluster.primary: binaries is missing: name the directory of postgres" in workspace.preview().text
    workspace.write(declared | {"primary": bare | {"host": {"docker": "No Image"}}})
    done = workspace.preview()
    assert "cluster.primary.host.docker:" in done.text
    workspace.write(declared)
    monkeypatch.setitem(workspace.environment, "DOCKER_HOST", "unix:///no/such/socket")
    assert "docker does not answer at unix:///no/such/socket" in workspace.preview().text
    monkeypatch.undo()
