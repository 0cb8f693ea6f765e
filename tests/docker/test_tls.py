"""A dockerd that is reached over TLS with certificates on both sides: a command's streams, each to its end."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

import docker
import pytest
from docker.errors import APIError
from docker.tls import TLSConfig

from bootstrap.ports import free_ports
from tde_replication.errors import CommandFailed, UserError
from tde_replication.hosts.docker import daemon as docker_daemon
from tde_replication.hosts.docker.attached import Attached
from tde_replication.hosts.docker.containers import ACCOUNT
from tde_replication.hosts.docker.daemon import daemon
from tde_replication.hosts.docker.machine import DockerHost
from tde_replication.hosts.docker.tls import upgraded
from tde_replication.hosts.worker import STDOUT
from tests.docker.lab import ROOM, CannotRunError, make_image, own_dockerd, server_container
from tests.engine.certificates import Authority

BIG = 3_000_000
"""More than all buffers on the way hold."""


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """One that runs on a dockerd which DOCKER_HOST and its kin name meanwhile; none of the servers' own."""
    with tempfile.TemporaryDirectory(prefix="tde-tls-") as name, pytest.MonkeyPatch.context() as environment:
        base = Path(name)
        authority = Authority(base, "ca")
        certificate, key = authority.certificate("127.0.0.1")
        for file, path in (("ca.pem", authority.file), ("cert.pem", certificate), ("key.pem", key)):
            (base / file).write_bytes(path.read_bytes())
        [port] = free_ports(1)
        options = ["--tlsverify", f"--tlscacert={authority.file}", f"--tlscert={certificate}", f"--tlskey={key}"]
        tls = TLSConfig((str(certificate), str(key)), str(authority.file), verify=True)
        try:
            with own_dockerd("--host", f"tcp://127.0.0.1:{port}", *options) as plain:
                for variable, value in {
                    "DOCKER_HOST": f"tcp://127.0.0.1:{port}",
                    "DOCKER_TLS_VERIFY": "1",
                    "DOCKER_CERT_PATH": name,
                }.items():
                    environment.setenv(variable, value)
                docker_daemon._version.cache_clear()
                del plain
                made_by = docker.DockerClient(f"tcp://127.0.0.1:{port}", tls=tls, timeout=120, version="1.41")
                made_by.api.trust_env = False
                with closing(made_by) as client:
                    (base / "server").mkdir()
                    make_image(client, "tde-tls:1", base / "server")
                    running = ("/bin/sh", "-c", "trap exit INT TERM; while :; do sleep 1; done")
                    with server_container(client, "tde-tls:1", ROOM / "data", entrypoint=running) as made:
                        DockerHost(f"docker://{made}").make_directory(
                            ROOM / "a"
                        )  # by a helper, which gives it the account
                        client.containers.get(made).start()
                        yield made
        except CannotRunError as reason:
            pytest.skip(f"TESTS WITH DOCKER DID NOT RUN: {reason}")
        finally:
            docker_daemon._version.cache_clear()


@pytest.fixture
def host(container: str) -> DockerHost:
    return DockerHost(f"docker://{container}")


def output_of(container: str, command: list[str], content: bytes) -> bytes:
    """Its whole output, when its input has ended."""
    with daemon() as client:
        assert client.base_url.startswith("https://")
        with Attached(client, container, command, user=ACCOUNT, deadline=60) as attached:
            attached.send(content)
            attached.end_input()
            found = b"".join(data for stream, data in attached.frames() if stream == STDOUT)
            assert attached.status() == 0
    return found


def test_output_comes_when_the_input_has_ended(container: str) -> None:
    content = os.urandom(BIG)
    digest = output_of(container, ["/bin/sh", "-c", "sleep 1; cat | wc -c; sleep 1; echo end"], content)
    assert digest.decode().split() == [str(BIG), "end"]


def test_output_may_begin_before_the_input_has_ended(container: str) -> None:
    assert output_of(container, ["/bin/sh", "-c", "head -c 3000000 /dev/zero; cat"], b"x") == b"\0" * BIG + b"x"


def test_files(host: DockerHost) -> None:
    path = ROOM / "a" / "file"
    content = os.urandom(BIG)
    host.write(path, content, mode=0o600)
    assert host.read(path) == content
    status = host.status(path)
    assert status
    assert status.mode == 0o600
    assert host.listing(path.parent) == ["file"]
    host.remove(path)
    assert host.read(path) is None


def test_a_command(host: DockerHost) -> None:
    said: list[str] = []
    assert host.run(["/bin/sh", "-c", "echo one; echo two >&2"], deadline=60, on_line=said.append) == "one\n"
    assert said == ["two"]


def test_a_command_that_does_not_end(host: DockerHost) -> None:
    with pytest.raises(CommandFailed, match="did not end within 2 s"):
        host.run(["/bin/sleep", "600"], deadline=2)
    listed = host.run(["/bin/sh", "-c", "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done"], deadline=60)
    assert "sleep 600" not in listed


def test_without_its_container_a_helper_serves(container: str, host: DockerHost) -> None:
    with daemon() as client:
        client.stop(container, timeout=0)
    try:
        host.write(ROOM / "b", b"text", mode=0o600)
        assert host.read(ROOM / "b") == b"text"
    finally:
        with daemon() as client:
            client.start(container)


def test_what_dockerd_refuses_is_its_sentence(container: str) -> None:
    del container
    with daemon() as client, pytest.raises(APIError) as caught:
        upgraded(client, "/exec/nosuch/start", {}, {"Tty": False, "Detach": False})
    assert caught.value.status_code == 404
    assert "nosuch" in str(caught.value.explanation)


def test_a_client_that_dockerd_does_not_know(container: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    certificate, key = stranger.certificate("127.0.0.1")
    (tmp_path / "ca.pem").write_bytes(Path(os.environ["DOCKER_CERT_PATH"], "ca.pem").read_bytes())
    (tmp_path / "cert.pem").write_bytes(certificate.read_bytes())
    (tmp_path / "key.pem").write_bytes(key.read_bytes())
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"docker does not answer at tcp://"):
        DockerHost(f"docker://{container}").read(PurePosixPath("/etc/passwd"))
