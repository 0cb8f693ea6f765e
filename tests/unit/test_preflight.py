"""What is looked up of the Vault before anything is declared: each mistake in a sentence that names its cause."""

import errno
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath
from unittest.mock import Mock

import pytest

from components import hosts
from components.hosts.local import LocalHost
from components.hosts.site import Site
from components.preflight import _is_mount_point, objections, objections_of_vault, objections_of_versions
from components.settings import Docker, Server
from components.vault_address import VaultAddress


class Plain(BaseHTTPRequestHandler):
    """Answers everything, and is no Vault."""

    content = b"{}"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Plain) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_https_to_a_port_that_speaks_http(port: int) -> None:
    [told] = objections_of_vault(f"https://127.0.0.1:{port}", None)
    assert told.startswith(f"vault:address: https://127.0.0.1:{port} does not speak TLS as it should (")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_ca_that_cannot_be_given_to_servers(tmp_path: Path, scheme: str) -> None:
    def told(ca: Path) -> list[str]:
        return objections_of_vault(f"{scheme}://127.0.0.1:1", str(ca))

    nowhere, text = tmp_path / "nowhere.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    assert told(nowhere) == [f"cluster.vault.ca: there is no file {nowhere} (cluster.vault.ca, VAULT_CACERT)"]
    assert told(text)[0].startswith(f"cluster.vault.ca: {text} holds no certificate")
    assert told(tmp_path) == [f"cluster.vault.ca: {tmp_path} cannot be read: {os.strerror(errno.EISDIR)}"]


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"data": null}', b"<html>"])
def test_what_is_no_vault_has_no_mount(port: int, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "content", content)
    monkeypatch.setenv("VAULT_TOKEN", "a token")
    vault = VaultAddress(f"http://127.0.0.1:{port}", None, None)
    assert not vault.made_for("tde-orders", "orders")
    assert not vault.left_by_a_killed_run("tde-orders", "orders")


def test_a_container_is_not_asked_who_has_a_port_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look into a container that is down starts a helper."""
    host = Mock(listing=Mock(return_value=[]), read=Mock(return_value=None))
    monkeypatch.setattr(hosts, "host", lambda _: host)
    server = Server(name="db2", host=Docker(docker="postgres"))
    assert objections("cluster.standbys[0]", server, container(18), "stack") == []
    assert {call.args[0].parent for call in host.read.call_args_list} == {DATA}


def test_where_a_file_system_is_mounted(tmp_path: Path) -> None:
    """It would be cloned beside it, onto another disk, and could not be moved into its place."""
    assert _is_mount_point(LocalHost(), PurePosixPath("/dev/shm"))
    assert not _is_mount_point(LocalHost(), PurePosixPath("/usr/bin"))
    assert not _is_mount_point(LocalHost(), PurePosixPath(tmp_path) / "nothing")


DATA = PurePosixPath("/data")


def container(version: int | None) -> Site:
    return Site(
        address="docker://db2",
        data=DATA,
        binaries=DATA,
        port=5432,
        reach="db2",
        clients=("samenet",),
        dsn="",
        server="",
        has_pg_tde=True,
        version=version,
        version_setting="host.docker",
        parameters={"unix_socket_directories": "/tmp"},
        in_container=True,
    )


@pytest.mark.parametrize(
    ("version", "holds", "refused"),
    [(18, b"18\n", False), (18, b"17\n", True), (None, b"17\n", False), (18, None, False), (18, b"soon", False)],
)
def test_programs_that_cannot_read_the_data_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: int | None, holds: bytes | None, *, refused: bool
) -> None:
    files = {"tde-replication.json": b'{"stack": "stack", "name": "db2"}', "PG_VERSION": holds}
    monkeypatch.setattr(hosts, "host", lambda _: Mock(read=lambda path: files[path.name]))
    server = Server(name="db2", host=Docker(docker="postgres"))
    told = (
        "cluster.standbys[0].host.docker: this is PostgreSQL 18, and the data in /data is of 17, which it cannot read: set it "
        "back. A stack upgrades no server to another major version"
    )
    assert objections("cluster.standbys[0]", server, container(version), "stack") == [told] * refused


def test_a_standby_is_of_its_primarys_version() -> None:
    sites = [container(version) for version in (17, 18, None, 17)]
    [told] = objections_of_versions(["cluster.primary", "cluster.standbys[0]", "a", "b"], sites)
    assert told == (
        "cluster.standbys[0].host.docker: this is PostgreSQL 18, and the primary's is 17: a standby is of its primary's major "
        "version"
    )
    assert objections_of_versions(["cluster.primary", "a"], [container(None), container(18)]) == []
