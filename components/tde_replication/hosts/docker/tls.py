"""A connection to dockerd over TLS that carries a command's streams, and whose two directions end one after the other.

Python's `ssl.SSLSocket` can neither: its `shutdown` drops the TLS layer for both directions, and two threads must not use one at
the same time. So the layer lies between two buffers here, and dockerd is asked without its SDK.
"""

import json
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from socket import SHUT_RDWR, SHUT_WR, create_connection
from typing import Any
from urllib.parse import urlencode, urlsplit

import docker
import requests
from docker.errors import APIError

CHUNK = 65_536
HEADER_BYTES = 65_536
"""At most, of an answer's header and of an error's text."""


class TlsStream:
    """As much of a socket as `containers.Streams` uses."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, timeout: float) -> None:
        self._raw = create_connection((host, port), timeout)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._layer = threading.Lock()
        self._sending = threading.Lock()
        """Held while sending, and taken before the layer: what is encrypted first is sent first."""
        self._read = bytearray()
        self._ended = False
        try:
            self._shake_hands()
        except BaseException:
            self._raw.close()
            raise

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(self._raw.recv(CHUNK) or b"\0")  # its end is no TLS
            else:
                return self._flush()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._raw.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        self._raw.settimeout(seconds)

    def fileno(self) -> int:
        return self._raw.fileno()

    def sendall(self, data: bytes) -> None:
        with self._sending:
            with self._layer:
                self._tls.write(data)
                encrypted = self._outgoing.read()
            self._raw.sendall(encrypted)

    def recv(self, count: int) -> bytes:
        """By one thread at a time."""
        while not self._read and not self._ended:
            data = self._raw.recv(CHUNK)
            with self._layer:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                self._decrypt()
        found = bytes(self._read[:count])
        del self._read[:count]
        return found

    def _decrypt(self) -> None:
        """All that has come: what ends our direction must not meet any of it."""
        try:
            while data := self._tls.read(CHUNK):
                self._read += data
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True

    def shutdown(self, how: int) -> None:
        if how == SHUT_RDWR:
            self._raw.shutdown(how)
        elif how == SHUT_WR:
            with self._sending:
                # It says that nothing more comes, and would wait for the other's end, which comes after its output.
                with self._layer, suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                    self._tls.unwrap()
                self._flush()

    def close(self) -> None:
        self._raw.close()


def upgraded(
    client: docker.APIClient, path: str, parameters: Mapping[str, Any], body: Mapping[str, Any] | None = None
) -> TlsStream:
    """The streams that a POST to `path` of the API becomes. Raises `APIError`."""
    url = urlsplit(f"{client.base_url}/v{client.api_version}{path}")
    context = ssl.create_default_context(cafile=client.verify if isinstance(client.verify, str) else None)
    if not client.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client.cert:
        context.load_cert_chain(*client.cert)
    content = json.dumps(body).encode() if body is not None else b""
    target = f"{url.path}?{urlencode(parameters)}" if parameters else url.path
    head = [
        f"POST {target} HTTP/1.1",
        f"Host: {url.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: Upgrade",
        "Upgrade: tcp",
    ]
    stream = TlsStream(str(url.hostname), url.port or 2376, context, client.timeout)
    try:
        stream.sendall("\r\n".join([*head, "", ""]).encode() + content)
        _expect_streams(stream)
    except BaseException:
        stream.close()
        raise
    return stream


def _expect_streams(stream: TlsStream) -> None:
    """Read the answer's header: behind it, the streams begin."""
    header = b""
    while not header.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte or len(header) > HEADER_BYTES:
            raise requests.ConnectionError("dockerd ended the connection in its answer")
        header += byte
    status = int(header.split(maxsplit=2)[1])
    if status in {101, 200}:
        return
    answer = requests.Response()
    answer.status_code = status
    said = stream.recv(HEADER_BYTES).decode(errors="replace")
    with suppress(ValueError, KeyError):
        said = json.loads(said[said.index("{") : said.rindex("}") + 1])["message"]
    raise APIError(f"status {status}", answer, said.strip())
