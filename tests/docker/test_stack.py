"""Clusters in containers by the real engine, from nothing to destroy."""

import logging
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from tde_replication.hosts.docker.machine import DockerHost
from tde_replication.testing.temporary import cluster
from tests.docker.lab import Contained, OwnVault, helpers, things
from tests.docker.test_host import DATA, eventually
from tests.engine.change import edited
from tests.engine.workspace import Workspace

# Docker's SDK leaves a socket open that could not be connected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket.*family=1:ResourceWarning")

log = logging.getLogger(__name__)


class Containers:
    """A stack with servers db1 (the primary) and db2 … in containers."""

    def __init__(
        self, workspace: Workspace, daemon: docker.DockerClient, image: str, binaries: str, count: int
    ) -> None:
        self.workspace = workspace
        self.daemon = daemon
        servers = {f"db{n + 1}": {"host": {"docker": image}, "binaries": binaries} for n in range(count)}
        vault = {"network": OwnVault.name, "addressFromServers": Contained.seen_from_servers}
        workspace.write({"disposable": True, "vault": vault, "primary": "db1", "servers": servers})

    def name(self, server: str) -> str:
        return f"tde-{self.workspace.stack}-{server}"

    def container(self, server: str) -> Any:
        return self.daemon.containers.get(self.name(server))

    def sql(self, server: str, query: str) -> list[tuple[Any, ...]]:
        with DockerHost(f"docker://{self.name(server)}").connect(DATA, "postgres") as connection:
            connection.execute(
                'SET search_path TO "$user", public; SET event_triggers = on'
            )  # as a person's own session
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
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"

    def stopped() -> None:
        cluster.container("db2").stop()

    def killed() -> None:
        cluster.container("db1").kill()

    def paused() -> None:
        cluster.container("db1").pause()

    def removed() -> None:
        cluster.container("db1").remove(force=True, v=True)

    for break_it, server, plan in (
        (stopped, "db2", {"Server db2": "update"}),
        (killed, "db1", {"Server db1": "update"}),
        (paused, "db1", {"Server db1": "update"}),
        (removed, "db1", {"Container db1": "create", "Server db1": "update"}),
    ):
        identifier = cluster.sql(server, "SELECT system_identifier FROM pg_control_system()")
        break_it()
        planned = workspace.preview().plan
        assert plan.items() <= planned.items(), break_it.__name__
        assert not {"DataDirectory db1", "DataDirectory db2", "Volume db1", "Volume db2"} & planned.keys()
        assert {name for name in planned if name.startswith("Container ")} <= plan.keys(), break_it.__name__
        workspace.up_well()
        assert cluster.sql(server, "SELECT system_identifier FROM pg_control_system()") == identifier
        eventually(lambda: cluster.streaming() == [("tde_db2",)])
    workspace.unchanged()
    assert cluster.sql("db2", "SELECT one FROM kept") == [(1,)]


def test_a_container_off_its_network_is_seen_and_brought_back(make: Callable[[int], Containers]) -> None:
    """It is on the Vault's network too, by which it may go on to stream."""
    cluster = make(2)
    workspace = cluster.workspace
    workspace.up_well()
    own = f"tde-{workspace.stack}"
    for server, network in (("db2", own), ("db1", OwnVault.name)):
        cluster.daemon.networks.get(network).disconnect(cluster.name(server))
        preview = workspace.preview()
        assert preview.plan.get(f"Server {server}") == "update", preview.changes
        assert f'"{network}"' in preview.text
        workspace.up_well()
        cluster.container(server).reload()
        assert set(cluster.container(server).attrs["NetworkSettings"]["Networks"]) == {own, OwnVault.name}
        eventually(lambda: cluster.streaming() == [("tde_db2",)])
        workspace.unchanged()


@pytest.fixture
def raised(make: Callable[[int], Containers]) -> Containers:
    cluster = make(1)
    cluster.workspace.up_well()
    return cluster


def test_docker_stops_it_as_postgresql_wants(raised: Containers) -> None:
    """`docker stop`, and dockerd's own end: a fast shutdown, which waits for no session, with time for its checkpoint."""
    container = raised.container("db1")
    assert container.attrs["Config"]["StopTimeout"] == 60
    with DockerHost(f"docker://{raised.name('db1')}").connect(DATA, "postgres") as session:
        session.execute("SELECT 1")
        started = time.monotonic()
        container.stop()  # by the signal and the patience that the container itself names
        assert time.monotonic() - started < 30
        session.close()
    said = container.logs().decode()
    assert "received fast shutdown request" in said
    assert said.rstrip().endswith("database system is shut down")
    container.reload()
    assert (container.attrs["State"]["ExitCode"], container.attrs["State"]["OOMKilled"]) == (0, False)


def test_a_standby_that_is_added_is_told_before_its_container_is_there(raised: Containers) -> None:
    workspace = raised.workspace
    workspace.write(edited(workspace.cluster, lambda c: c["servers"].update(db2=c["servers"]["db1"])))
    shown = workspace.preview()
    assert shown.code == 0, shown.errors
    assert shown.plan["DataDirectory db2"] == "create"
    assert "Server db1" not in shown.plan


def test_docker_knows_whether_it_is_well(raised: Containers) -> None:
    container = raised.container("db1")

    def state() -> Any:
        container.reload()
        return container.attrs["State"]["Health"]["Status"]

    eventually(lambda: state() == "healthy", seconds=40)
    check = container.attrs["Config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert container.exec_run(check[1:]).exit_code == 0
    # A postmaster that hangs is not well, though its process is there.
    script = 'read -r pid <"$2/postmaster.pid"; kill -s "$1" "$pid"'
    for signal, well in (("STOP", False), ("CONT", True)):
        assert container.exec_run(["/bin/sh", "-c", script, "sh", signal, str(DATA)]).exit_code == 0
        assert (container.exec_run(check[1:]).exit_code == 0) == well


@pytest.mark.soak
def test_a_network_that_is_cut_without_a_word_during_the_clone(raised: Containers) -> None:
    """No packet comes through any more, and none says so: libpq's keepalives end the clone, and the next `up` makes it."""
    workspace = raised.workspace
    raised.sql("db1", "CREATE TABLE big AS SELECT repeat('x', 7000) FROM generate_series(1, 20000)")
    raised.sql("db1", "ALTER TABLE big ALTER COLUMN repeat SET STORAGE EXTERNAL; UPDATE big SET repeat = repeat || 'y'")
    workspace.write(edited(workspace.cluster, lambda c: c["servers"].update(db2=c["servers"]["db1"])))

    def cloning() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "basebackup" in process.name() and raised.name("db1") in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def cut() -> None:
        streams = "SELECT count(*) FROM pg_stat_progress_basebackup WHERE backup_streamed > 0"
        eventually(lambda: raised.sql("db1", streams) == [(1,)], seconds=120)
        processes = cloning()
        for process in processes:  # so that it does not come to its end meanwhile
            process.suspend()
        try:
            namespace = f"--net=/proc/{processes[0].pid}/ns/net"
            show = ["nsenter", namespace, "ip", "-o", "link"]
            links = subprocess.run(show, check=True, capture_output=True, text=True).stdout
            for name in re.findall(r"^\d+: (eth\d+)", links, re.MULTILINE):
                subprocess.run(["nsenter", namespace, "ip", "link", "set", name, "down"], check=True)
        finally:
            for process in processes:
                process.resume()

    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut)
        began = time.monotonic()
        done = workspace.up()
        cutting.result()
    log.info("a clone without a network ended after %.0f s", time.monotonic() - began)
    assert done.code != 0
    assert any("base backup of db1" in line and "Nothing of it is left" in line for line in done.errors), done.text
    assert raised.streaming() == []
    running = "SELECT count(*) FROM pg_stat_progress_basebackup"
    eventually(lambda: raised.sql("db1", running) == [(0,)], seconds=90)  # the primary does not wait on, either
    workspace.up_well()
    assert raised.streaming() == [("tde_db2",)]
    assert raised.sql("db1", "SELECT count(*) FROM pg_replication_slots") == [(1,)]
    workspace.unchanged()


@pytest.mark.soak
def test_a_tag_that_moves_is_shown_and_replaces_around_the_data(
    make: Callable[[int], Containers], daemon: docker.DockerClient, image: str
) -> None:
    """The container is pinned to the image's id: it never runs another than was shown."""
    tag = f"{image}-moving"
    daemon.images.get(image).tag(tag)
    before = daemon.images.get(image).id
    cluster = make(1)
    workspace = cluster.workspace
    try:
        workspace.write(edited(workspace.cluster, lambda c: c["servers"]["db1"].update(host={"docker": tag})))
        workspace.up_well()
        workspace.unchanged()
        assert cluster.container("db1").attrs["Config"]["Image"] == before
        identifier = cluster.sql("db1", "SELECT system_identifier FROM pg_control_system()")
        # Another name of the same image, and another image of another name, are nothing to it.
        daemon.images.get(image).tag(f"{image}-too")
        daemon.images.remove(f"{image}-too")
        workspace.unchanged()
        committed = cluster.container("db1").commit(repository=image.partition(":")[0], tag=tag.partition(":")[2])
        assert committed.id != before
        plan = workspace.preview().plan
        workspace.up_well()
        assert cluster.container("db1").attrs["Config"]["Image"] == committed.id
        assert cluster.sql("db1", "SELECT system_identifier FROM pg_control_system()") == identifier
        workspace.unchanged()
        assert plan == {"Container db1": "replace", "Server db1": "update"}
    finally:
        assert workspace.destroy().code == 0
        daemon.images.remove(tag)


@pytest.mark.soak
def test_another_network_to_the_vault_and_another_major_version(
    make: Callable[[int], Containers], daemon: docker.DockerClient, image: str
) -> None:
    """Containers are replaced around their volumes; an image whose server could not read those is refused."""
    cluster = make(2)
    workspace = cluster.workspace
    workspace.up_well()
    identifier = cluster.sql("db1", "SELECT system_identifier FROM pg_control_system()")
    newer, network = f"{image}-newer", daemon.networks.create(f"{workspace.stack}-vault")
    network.connect(OwnVault.name)
    try:
        workspace.write(edited(workspace.cluster, lambda c: c["vault"].update(network=network.name)))
        plan = workspace.preview().plan
        workspace.up_well()
        workspace.unchanged()
        assert plan == {f"{kind} {name}": step for name in ("db1", "db2") for kind, step in REPLACED.items()}
        assert network.name in cluster.container("db1").attrs["NetworkSettings"]["Networks"]
        assert cluster.sql("db1", "SELECT system_identifier FROM pg_control_system()") == identifier
        assert cluster.sql("db2", "SELECT pg_tde_verify_server_key()") == [("",)]
        eventually(lambda: cluster.streaming() == [("tde_db2",)])
        declared, before = workspace.cluster, cluster.container("db1").attrs["State"]["StartedAt"]
        repository, _, tag = newer.partition(":")
        cluster.container("db1").commit(repository=repository, tag=tag, changes="ENV PG_MAJOR=19")
        workspace.write(edited(declared, lambda c: c["servers"]["db2"].update(host={"docker": newer})))
        refused = workspace.preview()
        assert refused.code != 0
        assert (
            f"cluster.servers.db2.host.docker: this is PostgreSQL 19, and the data in {DATA} is of 18" in refused.text
        )
        workspace.write(declared)
        workspace.unchanged()
        assert cluster.container("db1").attrs["State"]["StartedAt"] == before
    finally:
        assert workspace.destroy().code == 0
        network.disconnect(OwnVault.name)
        network.remove()
        daemon.images.remove(newer)


REPLACED = {"Container": "replace", "Server": "update"}


@pytest.mark.soak
def test_ten_clusters_side_by_side(make: Callable[[int], Containers], daemon: docker.DockerClient) -> None:
    """Five of one server, five with a standby."""
    before = things(daemon)
    clusters = [make(1 + number % 2) for number in range(10)]
    with ThreadPoolExecutor(len(clusters)) as pool:
        began = time.monotonic()
        done = list(pool.map(lambda one: one.workspace.up(), clusters))
        assert [one.code for one in done] == [0] * 10, [one.errors or one.text for one in done if one.code]
        log.info("ten clusters up in %d s", time.monotonic() - began)
        found = {tuple(one.sql("db1", "SELECT system_identifier FROM pg_control_system()")) for one in clusters}
        assert len(found) == 10
        ports = {re.findall(r"port=(\d+)", one.workspace.output("primaryDsn"))[0] for one in clusters}
        assert len(ports) == 10
        assert [one.streaming() for one in clusters] == [[], [("tde_db2",)]] * 5
        began = time.monotonic()
        assert [one.code for one in pool.map(lambda one: one.workspace.preview("--expect-no-changes"), clusters)] == [
            0
        ] * 10
        log.info("ten previews without a change in %d s", time.monotonic() - began)
        # Every second one goes, and the others stay.
        began = time.monotonic()
        alone, paired = clusters[::2], clusters[1::2]
        assert [one.code for one in pool.map(lambda one: one.workspace.destroy(), alone)] == [0] * 5
        log.info("five clusters down in %d s", time.monotonic() - began)
        assert [one.streaming() for one in paired] == [[("tde_db2",)]] * 5
        assert [one.code for one in pool.map(lambda one: one.workspace.preview("--expect-no-changes"), paired)] == [
            0
        ] * 5
        began = time.monotonic()
        assert [one.code for one in pool.map(lambda one: one.workspace.destroy(), paired)] == [0] * 5
        log.info("the other five, with standbys, down in %d s", time.monotonic() - began)
    eventually(lambda: things(daemon) == before)


@pytest.mark.soak
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
    bare = {key: value for key, value in declared["servers"]["db1"].items() if key != "binaries"}
    workspace.write(declared | {"servers": {"db1": bare}})
    assert "cluster.servers.db1: binaries is missing: name the directory of postgres" in workspace.preview().text
    workspace.write(declared | {"servers": {"db1": bare | {"host": {"docker": "No Image"}}}})
    done = workspace.preview()
    assert "cluster.servers.db1.host.docker:" in done.text
    workspace.write(declared)
    monkeypatch.setitem(workspace.environment, "DOCKER_HOST", "unix:///no/such/socket")
    assert "docker does not answer at unix:///no/such/socket" in workspace.preview().text
    monkeypatch.undo()


def test_a_cluster_of_the_pytest_plugin_in_containers(
    daemon: docker.DockerClient,
    image: str,
    binaries: str,
    contained_bao: Contained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it leaves is looked at after every test here."""
    for name, value in contained_bao.environment.items():
        monkeypatch.setenv(name, value)
    vault = {"network": OwnVault.name, "addressFromServers": Contained.seen_from_servers}
    servers = {name: {"binaries": binaries} for name in ("db1", "db2")}
    with cluster(docker=image, servers=servers, vault=vault) as made:
        assert "1 primary, 1 standby, streaming" in made.summary
        names = {f"tde-{made.name}-{server}" for server in servers}
        assert names <= {container.name for container in daemon.containers.list()}
