"""What the reconcilers ask of a host, on a container that is made as a stack makes it."""

import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

import docker
import pytest
from docker.errors import APIError

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts.docker import (
    attached as attached_module,
    containers,
    daemon as docker_daemon,
    machine as docker_host,
    relay,
)
from tde_replication.hosts.docker.machine import DockerHost
from tde_replication.hosts.worker import WORKERS
from tests.docker.lab import ROOM, SLOW, helpers, server_container

# Docker's SDK leaves a socket open that could not be connected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket.*family=1:ResourceWarning")

PLACE = ROOM
DATA = PLACE / "data"
DEADLINE = 60


@pytest.fixture
def container(daemon: docker.DockerClient, image: str) -> Iterator[str]:
    with server_container(daemon, image, DATA) as name:
        yield name


@pytest.fixture
def host(container: str) -> DockerHost:
    return DockerHost(f"docker://{container}")


@pytest.fixture
def server(host: DockerHost, binaries: str) -> Iterator[DockerHost]:
    """A running one."""
    initialise(host, binaries)
    host.start(PurePosixPath(binaries), DATA)
    eventually(lambda: answers(host))
    yield host
    host.stop(PurePosixPath(binaries), DATA, deadline=DEADLINE)


def initialise(host: DockerHost, binaries: str) -> None:
    initdb = ["initdb", "--username=postgres", "--auth-local=peer", "--no-sync", f"--pgdata={DATA}"]
    host.run([f"{binaries}/{initdb[0]}", *initdb[1:]], deadline=DEADLINE)
    host.write(DATA / "postgresql.auto.conf", b"unix_socket_directories = '/tmp'\n", mode=0o600)


def answers(host: DockerHost) -> bool:
    try:
        host.connect(DATA, "postgres").close()
    except Unavailable:
        return False
    return True


def logs_ready(host: DockerHost, mark: int) -> bool:
    return "database system is ready to accept connections" in host.log_since(DATA, mark)


def eventually(reached: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def test_a_file_that_does_not_fit_leaves_the_old_one(server: DockerHost) -> None:
    path = PurePosixPath("/dev/shm/file")
    old, new = b"old" * 2**20, b"new" * 21 * 2**20
    server.write(path, old, mode=0o600)
    with pytest.raises(UserError, match="No space left on device"):
        server.write(path, new, mode=0o600)
    assert server.read(path) == old
    assert [name for name in server.listing(path.parent) if "file" in name] == ["file"]


def test_files_without_a_running_server(host: DockerHost) -> None:
    path = PLACE / "a 'quoted' $HOME -n"
    assert host.read(path) is None
    assert host.status(path) is None
    assert host.listing(DATA) == []
    content = bytes(range(256)) * 1000
    host.write(path, content, mode=0o640)
    assert host.read(path) == content
    found = host.status(path)
    assert found
    assert (found.kind, found.owner, found.mode) == ("file", "postgres", 0o640)
    host.write(path, b"", mode=0o600)
    assert host.read(path) == b""
    host.make_directory(PLACE / "one" / "two")
    found = host.status(PLACE / "one")
    assert found
    assert (found.kind, found.owner, found.mode) == ("directory", "postgres", 0o700)
    host.write(PLACE / "deep" / "er" / "file", b"x", mode=0o600)
    assert host.listing(PLACE) == sorted([path.name, "one", "deep"]), "no draft is left"
    host.rename(PLACE / "deep", PLACE / "moved")
    assert host.read(PLACE / "moved" / "er" / "file") == b"x"
    with pytest.raises(UserError, match="exists already"):
        host.rename(PLACE / "moved", PLACE / "one")
    host.remove(PLACE / "moved")
    host.remove(PLACE / "moved")
    assert host.listing(PLACE) == sorted([path.name, "one"])
    with pytest.raises(UserError, match="directory"):
        host.write(PLACE / "one", b"", mode=0o600)
    assert host.listing(PLACE / "one") == ["two"]


def test_a_helper_ends_with_its_last_use(
    host: DockerHost, container: str, daemon: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "IDLE", 5)
    host.listing(PLACE)
    assert len(helpers(daemon, container)) == 1
    host.listing(PLACE)
    assert len(helpers(daemon, container)) == 1, "one serves all"
    eventually(lambda: not helpers(daemon, container), seconds=30)


def test_a_helper_is_on_all_networks_of_its_server(
    host: DockerHost, container: str, daemon: docker.DockerClient
) -> None:
    other = daemon.networks.create(f"{container}-other")
    other.connect(container)
    try:
        names = host.run(["/bin/ls", "/sys/class/net"], deadline=DEADLINE).split()
        assert len([name for name in names if name.startswith("eth")]) == 2
        eventually(lambda: not helpers(daemon, container))
    finally:
        other.disconnect(container)
        other.remove()


def test_where_another_container_reaches_it(
    server: DockerHost, container: str, image: str, daemon: docker.DockerClient
) -> None:
    with server_container(daemon, image, DATA) as other:
        stranger = DockerHost(f"docker://{other}")
        assert server.passing_address(stranger) is None
        network = daemon.networks.get(container)
        network.connect(other)
        try:
            found = daemon.containers.get(container).attrs["NetworkSettings"]["Networks"][container]["IPAddress"]
            assert found
            assert server.passing_address(stranger) == found
        finally:
            network.disconnect(other)
    assert server.passing_address(stranger) is None


def test_commands(host: DockerHost) -> None:
    assert host.run(["sh", "-c", 'echo "$1"; id -un', "sh", "a b'c"], deadline=DEADLINE) == "a b'c\npostgres\n"
    assert host.run(["pwd"], deadline=DEADLINE, directory=PLACE) == f"{PLACE}\n"
    assert host.run(["sh", "-c", "echo $X"], deadline=DEADLINE, environment={"X": "é"}) == "é\n"
    lines: list[str] = []
    script = "printf 'one\\ntw' >&2; sleep 0.3; printf 'o\\nthree' >&2; echo out"
    assert host.run(["sh", "-c", script], deadline=DEADLINE, on_line=lines.append) == "out\n"
    assert lines == ["one", "two", "three"]
    with pytest.raises(CommandFailed, match="no such luck") as failure:
        host.run(["sh", "-c", "echo no such luck >&2; exit 7"], deadline=DEADLINE)
    assert failure.value.status == 7
    with pytest.raises(CommandFailed):
        host.run(["/no/such/program"], deadline=DEADLINE)


def test_much_output_is_whole(host: DockerHost) -> None:
    said = host.run(["head", "-c", "3000000", "/dev/zero"], deadline=DEADLINE)
    assert len(said) == 3_000_000


def test_a_missed_deadline_ends_the_whole_group(
    host: DockerHost, container: str, daemon: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "IDLE", 5)
    started = time.monotonic()
    with pytest.raises(CommandFailed, match=r"within 0\.5 s"):
        host.run(["sh", "-c", "sleep 1234 & sleep 1234"], deadline=0.5)
    assert time.monotonic() - started < 10
    [helper] = daemon.containers.list(ignore_removed=True, filters={"label": f"{containers.HELPER}={container}"})
    with suppress(APIError):  # the helper has ended, and all in it
        eventually(lambda: "sleep 1234" not in str(helper.top()))


KILLED = """
import sys
from tde_replication.hosts.docker import DockerHost
DockerHost(sys.argv[1]).run(["sh", "-c", "echo started >&2; sleep 1234"], deadline=60, on_line=lambda _: print("on", flush=True))
"""


def processes(daemon: docker.DockerClient, name: str) -> str:
    found = []
    for one in daemon.containers.list(ignore_removed=True, filters={"name": name}):
        with suppress(APIError):  # a helper that has ended since it was listed has no processes
            found.append(str(one.top()))
    return "".join(found)


def killed(address: str) -> subprocess.Popen[str]:
    """Another process, killed in the middle of a command on this host."""
    child = subprocess.Popen([sys.executable, "-c", KILLED, address], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "on\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return child


def test_a_killed_caller_leaves_no_helper(host: DockerHost, container: str, daemon: docker.DockerClient) -> None:
    killed(host.address)
    eventually(lambda: not helpers(daemon, container))


def test_a_killed_caller_leaves_no_command_and_a_sound_server(
    server: DockerHost, container: str, daemon: docker.DockerClient
) -> None:
    before = server.postmaster(DATA)
    killed(server.address)
    eventually(lambda: "sleep 1234" not in processes(daemon, container))
    assert server.postmaster(DATA) == before
    with server.connect(DATA, "postgres") as connection:
        row = connection.execute("SELECT current_user, inet_client_addr() IS NULL, 'äö'").fetchone()
        assert row == ("postgres", True, "äö")


def shells(daemon: docker.DockerClient, name: str) -> list[int]:
    """Those that are kept in the container, by their process ids on this machine."""
    found = daemon.containers.get(name).top(ps_args="-efww")  # whole command lines, however wide the terminal is
    at = found["Titles"].index("PID")
    return [int(one[at]) for one in found["Processes"] if "read -r count marker" in str(one)]


def test_all_scripts_share_one_shell(server: DockerHost, container: str, daemon: docker.DockerClient) -> None:
    for number in range(20):
        server.write(PLACE / f"file{number}", b"", mode=0o600)
        server.remove(PLACE / f"file{number}")
    assert len(shells(daemon, container)) == 1
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(server.listing, [DATA] * 8))
    assert len(shells(daemon, container)) <= 4


LISTED = """
import signal, sys
from pathlib import PurePosixPath
from tde_replication.hosts.docker import DockerHost
print(DockerHost(sys.argv[1]).listing(PurePosixPath(sys.argv[2])), flush=True)
signal.pause() if sys.argv[3:] else None
"""


@pytest.mark.parametrize("more", [[], ["killed"]], ids=["ends", "is killed"])
def test_no_shell_outlives_whoever_keeps_it(
    server: DockerHost, container: str, daemon: docker.DockerClient, more: list[str]
) -> None:
    WORKERS.end()
    eventually(lambda: not shells(daemon, container))
    command = [sys.executable, "-c", LISTED, server.address, str(DATA), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert "PG_VERSION" in child.stdout.readline()
            assert not more or len(shells(daemon, container)) == 1
        finally:
            if more:
                child.kill()
    eventually(lambda: not shells(daemon, container))
    assert server.postmaster(DATA), "it ends nothing else"


def test_another_run_of_the_container_gets_another_shell(
    server: DockerHost, container: str, daemon: docker.DockerClient
) -> None:
    assert server.listing(DATA)
    daemon.containers.get(container).restart()
    eventually(lambda: answers(server))
    assert server.listing(DATA)
    assert len(shells(daemon, container)) == 1
    daemon.containers.get(container).kill("SIGKILL")
    assert server.read(DATA / "PG_VERSION"), "by a helper"
    server.start(PurePosixPath("/unused"), DATA)
    eventually(lambda: answers(server))
    assert server.listing(DATA)
    assert len(shells(daemon, container)) == 1


def test_a_shell_that_somebody_ended_is_replaced(
    server: DockerHost, container: str, daemon: docker.DockerClient
) -> None:
    assert server.listing(DATA)
    for pid in shells(daemon, container):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not shells(daemon, container))
    assert server.listing(DATA)


def test_its_files_are_at_hand_once_it_has_stopped(
    server: DockerHost, container: str, daemon: docker.DockerClient
) -> None:
    with server.stopped_soon():
        [helper] = helpers(daemon, container)
        server.stop(PurePosixPath("/unused"), DATA, deadline=DEADLINE)
        assert server.listing(DATA)
        assert helpers(daemon, container) == [helper]
        assert server.postmaster(DATA) is None


def test_connections(server: DockerHost, container: str, daemon: docker.DockerClient) -> None:
    big = 10_000_000
    with server.connect(DATA, "postgres") as one, server.connect(DATA, "template1") as other:
        assert one.execute("SELECT length(%s)", ["x" * big]).fetchone() == (big,)
        row = other.execute("SELECT repeat('x', %s), current_database()", [big]).fetchone()
        assert row == ("x" * big, "template1")
    eventually(lambda: "/opt/tde-replication/relay" not in processes(daemon, container))
    assert server.postmaster(DATA), "the end of a connection ends nothing else"
    with pytest.raises(Unavailable, match="no_such"):
        server.connect(DATA, "no_such")
    with server.connect(DATA, "postgres") as one:
        one.execute("SELECT 1")
        server.stop(PurePosixPath("/unused"), DATA, deadline=DEADLINE)
        with pytest.raises(Exception, match=r"closed|terminat"):
            one.execute("SELECT 1")
    with pytest.raises(Unavailable, match="no server runs"):
        server.connect(DATA, "postgres")


def test_start_stop_and_log(server: DockerHost, container: str, daemon: docker.DockerClient, binaries: str) -> None:
    programs = PurePosixPath(binaries)
    found = server.postmaster(DATA)
    assert found
    assert (found.port, found.socket_directory) == (5432, "/tmp")
    server.stop(programs, DATA, deadline=DEADLINE)
    assert server.postmaster(DATA) is None
    assert daemon.containers.get(container).status == "exited", "no restart policy brings it back"
    assert "shut down" in server.run([f"{binaries}/pg_controldata", str(DATA)], deadline=DEADLINE)
    server.stop(programs, DATA, deadline=DEADLINE)
    server.write(DATA / "postgresql.auto.conf", b"no_such_parameter = 1\n", mode=0o600)
    mark = server.start(programs, DATA)
    eventually(lambda: "no_such_parameter" in server.log_since(DATA, mark))
    assert not logs_ready(server, mark), "nothing of the start before"
    server.stop(programs, DATA, deadline=DEADLINE)
    assert daemon.containers.get(container).status == "exited"


def test_a_paused_server_is_none_and_started_again(
    server: DockerHost, container: str, daemon: docker.DockerClient
) -> None:
    before = server.postmaster(DATA)
    daemon.containers.get(container).pause()
    assert server.postmaster(DATA) is None
    assert "PG_VERSION" in server.listing(DATA)
    with pytest.raises(Unavailable, match="no server runs"):
        server.connect(DATA, "postgres")
    server.start(PurePosixPath("/unused"), DATA)
    assert server.postmaster(DATA) == before
    assert answers(server)
    daemon.containers.get(container).pause()
    server.stop(PurePosixPath("/unused"), DATA, deadline=DEADLINE)
    assert "received fast shutdown request" in server.log_since(DATA, 1_000_000)


def test_what_is_paused_meanwhile_ends_with_its_deadline(
    server: DockerHost, container: str, daemon: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = daemon.containers.get(container)
    monkeypatch.setattr(docker_host, "CUT", 1)
    found = server._find()
    monkeypatch.setattr(server, "_find", lambda: found)  # it was well when it was asked last
    script = ["sh", "-c", "echo started >&2; sleep 1234"]
    with pytest.raises(CommandFailed, match="it did not end within 5 s"):
        server.run(script, deadline=5, on_line=lambda _: paused.pause())
    with pytest.raises(Unavailable, match="does not answer: "):
        server.connect(DATA, "postgres", connect_timeout=2)
    paused.unpause()
    eventually(lambda: "sleep 1234" not in processes(daemon, container))

    send = attached_module.Attached.send

    def pause(attached: attached_module.Attached, data: bytes) -> None:
        send(attached, data)
        eventually(lambda: "sleep 1234" in processes(daemon, container))
        paused.pause()

    assert server.listing(DATA), "its shell is there"
    monkeypatch.setattr(attached_module.Attached, "send", pause)
    with pytest.raises(Unavailable, match=r"container \S+ did not answer within 5 s"):
        server._execute("sleep 1234", deadline=5)
    paused.unpause()
    monkeypatch.undo()
    assert answers(server)


def test_a_crashed_server_is_no_server(server: DockerHost, container: str, daemon: docker.DockerClient) -> None:
    daemon.containers.get(container).kill("SIGKILL")
    eventually(lambda: daemon.containers.get(container).status == "exited")
    assert server.read(DATA / "postmaster.pid"), "its pid file stays"
    assert server.postmaster(DATA) is None
    server.start(PurePosixPath("/unused"), DATA)
    eventually(lambda: answers(server))


def test_a_start_that_docker_notes_late(daemon: docker.DockerClient, image: str, binaries: str) -> None:
    """As on a busy machine: by then the server may have written all its lines, and in another second."""
    if SLOW not in daemon.info()["Runtimes"]:
        pytest.skip("A SLOW RUNTIME DID NOT RUN: this dockerd is not the tests' own")
    with server_container(daemon, image, DATA, SLOW) as name:
        host = DockerHost(f"docker://{name}")
        initialise(host, binaries)
        for _ in range(2):
            mark = host.start(PurePosixPath(binaries), DATA)
            eventually(lambda: answers(host))
            assert host.postmaster(DATA)
            eventually(partial(logs_ready, host, mark))
            assert "shutting down" not in host.log_since(DATA, mark)
            host.stop(PurePosixPath(binaries), DATA, deadline=DEADLINE)


def test_no_command_runs_beside_a_server_that_has_not_its_lock_files(
    daemon: docker.DockerClient, image: str, binaries: str
) -> None:
    """It might have the number of the server before, which was killed: then this one would not start."""
    late = ["/bin/sh", "-c", f'sleep 1; exec {binaries}/postgres "$@"', "late"]
    with server_container(daemon, image, DATA, entrypoint=late) as name:
        host = DockerHost(f"docker://{name}")
        initialise(host, binaries)
        host.start(PurePosixPath(binaries), DATA)
        assert host.postmaster(DATA), "it took its lock files before the first command"
        host.stop(PurePosixPath(binaries), DATA, deadline=DEADLINE)


def test_a_pid_file_of_an_earlier_run_is_no_server(
    server: DockerHost, container: str, daemon: docker.DockerClient
) -> None:
    """It may name the very process of this run."""
    path = DATA / "postmaster.pid"
    began = int((server.read(path) or b"").splitlines()[2])
    eventually(lambda: time.time() >= began + 1)
    daemon.containers.get(container).kill("SIGKILL")
    eventually(lambda: daemon.containers.get(container).status == "exited")
    server.start(PurePosixPath("/unused"), DATA)
    eventually(lambda: answers(server))
    content = server.read(path) or b""
    lines = content.splitlines(keepends=True)
    server.write(path, b"".join([*lines[:2], b"%d\n" % began, *lines[3:]]), mode=0o600)
    assert server.postmaster(DATA) is None
    server.write(path, content, mode=0o600)
    assert server.postmaster(DATA)


def test_the_files_of_a_removed_container(host: DockerHost, container: str, daemon: docker.DockerClient) -> None:
    host.write(PLACE / "file", b"x", mode=0o600)
    eventually(lambda: not helpers(daemon, container))
    daemon.containers.get(container).remove(v=True)
    assert host.read(PLACE / "file") == b"x"
    assert host.postmaster(DATA) is None
    host.stop(PurePosixPath("/unused"), DATA, deadline=DEADLINE)
    with pytest.raises(Unavailable, match="`up` makes it"):
        host.start(PurePosixPath("/unused"), DATA)
    host.remove(PLACE / "file")
    assert host.listing(PLACE) == []


def test_where_there_is_nothing(daemon: docker.DockerClient) -> None:
    host = DockerHost("docker://tde-no-such-container")
    assert daemon.ping()
    assert host.listing(DATA) == []
    assert host.postmaster(DATA) is None
    host.remove(DATA)
    with pytest.raises(Unavailable):
        host.write(PLACE / "file", b"", mode=0o600)
    with pytest.raises(Unavailable):
        host.connect(DATA, "postgres")


def test_no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/socket")
    docker_daemon._version.cache_clear()
    with pytest.raises(Unavailable, match="docker does not answer at unix:///no/such/socket"):
        DockerHost("docker://any").listing(DATA)
    docker_daemon._version.cache_clear()


def test_secrets_are_in_no_argument(
    host: DockerHost, container: str, daemon: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "IDLE", 5)
    secret = secrets.token_hex(16)
    host.write(PLACE / "token", secret.encode(), mode=0o600)
    [helper] = daemon.containers.list(ignore_removed=True, filters={"label": f"{containers.HELPER}={container}"})
    for exec_id in helper.attrs["ExecIDs"] or []:
        assert secret not in str(daemon.api.exec_inspect(exec_id))
    assert secret not in str(helper.attrs)
    assert secret not in str(daemon.api.inspect_container(container))


@pytest.mark.skipif(not shutil.which("objcopy") or platform.machine() != "x86_64", reason="needs binutils on x86_64")
def test_the_relay_is_what_its_source_says(tmp_path: Path) -> None:
    source = Path(relay.__file__).with_name("x86_64.S")
    subprocess.run(["as", source, "-o", tmp_path / "relay.o"], check=True)
    sections = ("-O", "binary", "-j", ".text")
    subprocess.run(["objcopy", *sections, tmp_path / "relay.o", tmp_path / "relay"], check=True)
    assert (tmp_path / "relay").read_bytes().hex() == relay.CODE["x86_64"]
