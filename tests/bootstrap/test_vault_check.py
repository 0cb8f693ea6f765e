"""What is said of a stack's Vault before Pulumi is asked anything: one sentence, or nothing."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bootstrap.vault_check import why_unusable


class Sealed(BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(str(self.headers))
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"initialized": true, "sealed": true}')

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def sealed() -> Iterator[str]:
    Sealed.seen = []
    with HTTPServer(("127.0.0.1", 0), Sealed) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "Pulumi.test.yaml"


def test_nothing_is_set(file: Path) -> None:
    told = (
        "Pulumi.test.yaml names no vault:address, and VAULT_ADDR is not set: nothing was asked. Set it, and VAULT_TOKEN"
    )
    assert why_unusable(file, {}) == told


def test_no_token(file: Path, tmp_path: Path) -> None:
    environ = {"VAULT_ADDR": "https://vault.example.net:8200", "HOME": str(tmp_path)}
    told = why_unusable(file, environ)
    assert told
    assert told.startswith("there is no token for the Vault at https://vault.example.net:8200: set VAULT_TOKEN")


def test_nobody_listens(file: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{free.getsockname()[1]}"
        told = why_unusable(file, {"VAULT_ADDR": address, "VAULT_TOKEN": "t"})
    assert told
    assert told.startswith(f"nothing listens at {address}: start that Vault")


@pytest.mark.parametrize("line", ["vault:address: {}", 'vault:address: "{}" # ours', "'vault:address': {}"])
def test_a_sealed_one_that_the_stack_file_names(file: Path, sealed: str, line: str) -> None:
    file.write_text(f"config:\n  {line.format(sealed)}\n  vault:token:\n    secure: v1:x\n")
    told = why_unusable(file, {"VAULT_TOKEN": "hvs.secret"})
    assert (
        told == f"the Vault at {sealed} is sealed: unseal it and run this again (`make vault` unseals the embedded one)"
    )
    assert "hvs.secret" not in "".join(Sealed.seen)


@pytest.mark.parametrize(
    "text", ["config:\n  vault:address:\n    secure: v1:x\n", "config:\n  vault:address: {secure: v1:x}\n"]
)
def test_an_encrypted_address_is_left_to_the_program(file: Path, text: str) -> None:
    file.write_text(text)
    assert why_unusable(file, {"VAULT_ADDR": "https://127.0.0.1:1"}) is None


class Denies(Sealed):
    def do_GET(self) -> None:
        self.seen.append(str(self.headers))
        health = self.path.startswith("/v1/sys/health")
        self.send_response(200 if health else 403)
        self.end_headers()
        self.wfile.write(b"{}" if health else b'{"errors": ["permission denied"]}')


@pytest.fixture
def denying() -> Iterator[str]:
    Sealed.seen = []
    with HTTPServer(("127.0.0.1", 0), Denies) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_token_that_is_not_known_there(file: Path, denying: str) -> None:
    told = why_unusable(file, {"VAULT_ADDR": denying, "VAULT_TOKEN": "hvs.secret"})
    assert told
    assert told.startswith(f"the Vault at {denying} does not let your token look itself up")
    assert "hvs.secret" not in told


def test_the_environments_token_goes_to_its_own_address_alone(file: Path, denying: str) -> None:
    file.write_text(f"config:\n  vault:address: {denying}\n")
    assert why_unusable(file, {"VAULT_ADDR": "https://vault.example.net:8200", "VAULT_TOKEN": "hvs.secret"}) is None
    assert Sealed.seen
    assert "hvs.secret" not in "".join(Sealed.seen)
