"""The client for Vault's API, and servers that are no Vault, hostile, slow, or endless."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tde_replication import unasked
from tde_replication.errors import Unavailable, UserError
from tde_replication.vault import client
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.client import Client, Denied, Rejected

TOKEN = "hvs.of-the-environment"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers each request by `answer`, and keeps what it was sent."""

    daemon_threads = True
    answer: Answer

    def __init__(self) -> None:
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.path} {self.headers.get('X-Vault-Token')}")
        self.server.answer(self)

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def servers() -> Iterator[Callable[[Answer], Server]]:
    running: list[Server] = []

    def start(answer: Answer) -> Server:
        server = Server()
        server.answer = answer
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def says(status: int, content: bytes = b"{}", **headers: str) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(content)

    return answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(servers: Any, status: int) -> None:
    thief = servers(says(200))
    vault = servers(says(status, Location=f"{thief.address}/v1/\x1b[2J"))
    asked = Client(vault.address, TOKEN)
    questions: list[Callable[[], object]] = [asked.health, lambda: asked.get("x"), lambda: asked.post("sys/x", {})]
    for ask in questions:
        with pytest.raises(UserError, match=r"answered with a redirect to .*servers would send their tokens there too"):
            ask()
    assert thief.seen == []


def test_who_is_asked_for_its_health_gets_no_token(servers: Any) -> None:
    vault = servers(says(200))
    Client(vault.address, TOKEN).health()
    assert vault.seen == ["/v1/sys/health?standbyok=true&perfstandbyok=true None"]


def test_a_body_byte_by_byte_and_headers_without_end_come_to_an_end(
    servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEADLINE", 0.6)
    stop = threading.Event()

    def drips(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.end_headers()
        while not stop.wait(0.05):
            to.wfile.write(b" ")

    def heads(to: BaseHTTPRequestHandler) -> None:
        to.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        drips(to)

    def silent(_: BaseHTTPRequestHandler) -> None:
        stop.wait(5)

    try:
        for slow in (drips, heads, silent):
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"did not answer within 0.6 s"):
                Client(servers(slow).address, TOKEN).get("sys/mounts/tde")
            assert time.monotonic() - began < 3
    finally:
        stop.set()


def test_a_large_body_is_not_read(servers: Any) -> None:
    sent: list[int] = []

    def floods(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.end_headers()
        try:
            sent.extend(to.wfile.write(b"x" * (1 << 20)) for _ in range(600))
        except OSError:
            return

    with pytest.raises(UserError, match="more than 1 MiB: is it a Vault"):
        Client(servers(floods).address, TOKEN).get("x")
    assert len(sent) < 50


@pytest.mark.parametrize(
    "content", [b"<html>", b"[]", b"nul", b'"x"', b"\xff\xfe", b"[" * 200_000, b"{" + b'"a":{' * 100_000]
)
def test_what_cannot_be_read_is_a_sentence(servers: Any, content: bytes) -> None:
    for status in (200, 400, 500):
        with pytest.raises(UserError, match="is not a Vault: check vault:address"):
            Client(servers(says(status, content)).address, TOKEN).get("x")


def test_what_does_not_speak_http_is_a_sentence(servers: Any) -> None:
    with pytest.raises(UserError, match=r"is not a Vault|cannot be reached"):
        Client(servers(lambda to: to.wfile.write(b"SSH-2.0-OpenSSH\r\n")).address, TOKEN).health()


@pytest.mark.parametrize(
    ("status", "content", "kind", "sentence"),
    [
        (403, b'{"errors": ["permission denied"]}', Denied, r"denies x to this token \(permission denied\)"),
        (503, b'{"errors": ["Vault is sealed"]}', UserError, "is sealed: unseal it"),
        (503, b'{"initialized": true, "sealed": true}', UserError, "is sealed: unseal it"),
        (502, b"{}", Unavailable, "answered x with status 502"),
        (400, b'{"errors": ["\\u001b[2J ##vso[x]"]}', Rejected, r"refuses x \(400\): \\x1b\[2J \\x23#vso\[x\]"),
        (400, b'{"errors": 7}', Rejected, "refuses x"),
    ],
)
def test_what_vault_has_against_it(
    servers: Any, status: int, content: bytes, kind: type[UserError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence) as told:
        Client(servers(says(status, content)).address, TOKEN).get("x")
    assert TOKEN not in str(told.value)


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (lambda client: client.get("tde/data/k"), 'path "tde/data/k" { capabilities = ["read"] }'),
        (lambda client: client.get("tde/metadata/?list=true"), 'path "tde/metadata/" { capabilities = ["list"] }'),
        (lambda client: client.post("sys/wrap", {}), 'path "sys/wrap" { capabilities = ["create", "update"] }'),
        (lambda client: client.delete("sys/mounts/tde"), 'path "sys/mounts/tde" { capabilities = ["delete"] }'),
    ],
)
def test_a_denial_says_which_line_of_a_policy_is_missing(
    servers: Any, ask: Callable[[Client], object], line: str
) -> None:
    with pytest.raises(Denied, match="check that the token is still valid") as told:
        ask(Client(servers(says(403, b'{"errors": ["permission denied"]}')).address, TOKEN))
    assert str(told.value).endswith(line)


def test_one_that_is_not_initialized(servers: Any) -> None:
    with pytest.raises(UserError, match="is not initialized: run `vault operator init`"):
        Client(servers(says(501)).address).health()


def test_nothing_is_sent_over_plain_http_to_another_machine() -> None:
    with pytest.raises(UserError, match="plain http"):
        Client("http://vault.example.net:8200", TOKEN).get("x")


def test_a_proxy_of_the_environment_is_not_asked_for_a_loopback(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, vault = servers(says(200)), servers(says(200))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.address)
    monkeypatch.delenv("no_proxy", raising=False)
    Client(vault.address, TOKEN).get("x")
    assert proxy.seen == []
    assert len(vault.seen) == 1


def test_nobody_listens() -> None:
    with pytest.raises(Unavailable, match=r"nothing listens at https://127.0.0.1:1: start that Vault"):
        Client("https://127.0.0.1:1").health()


def test_https_to_a_port_that_speaks_http(servers: Any) -> None:
    address = servers(says(200)).address.replace("http:", "https:")
    with pytest.raises(UserError, match=f"{address} does not speak TLS as it should"):
        Client(address).health()


def test_a_ca_that_cannot_be_given_to_servers(tmp_path: Path) -> None:
    def told(ca: Path) -> str:
        with pytest.raises(UserError) as error:
            Client("https://127.0.0.1:1", ca=str(ca)).health()
        return str(error.value)

    nowhere, text = tmp_path / "nowhere.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    assert told(nowhere) == f"there is no file {nowhere} (cluster.vault.ca, VAULT_CACERT)"
    assert told(text).startswith(f"{text} holds no certificate")
    assert told(tmp_path) == f"{tmp_path} cannot be read: {os.strerror(errno.EISDIR)}"


@pytest.mark.parametrize("content", [b"{}", b'{"data": null}', b'{"data": {"options": 7}}'])
def test_what_is_no_vault_has_no_mount(servers: Any, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    vault = VaultAddress(servers(says(200, content)).address, None, None)
    assert not vault.made_for("tde-orders", "orders")
    assert not vault.is_left("tde-orders", "orders", with_keys=False)


def test_a_mount_that_cannot_be_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken for none that a killed run has left: then Vault refuses to make it again."""
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    said: list[str] = []
    with unasked.told(said.append):
        assert not VaultAddress("http://127.0.0.1:1", None, None).is_left("tde-orders", "orders", with_keys=False)
    [text] = said
    assert text.endswith("Not checked: whether an earlier `up` has left tde-orders")
