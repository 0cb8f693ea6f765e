"""A command inside a container, and its streams."""

import select
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from socket import SHUT_RDWR, SHUT_WR, socket
from typing import Any, Self

import docker
from docker.errors import APIError, NotFound

from tde_replication.errors import Unavailable, UserError
from tde_replication.hosts import file_scripts as scripts
from tde_replication.hosts.docker.tls import TlsStream, upgraded
from tde_replication.waiting import Limit, until

CUT = 10.0
"""Seconds that a command has to end after its own deadline."""
TOLD = "read -r _ || exit\n"
"""Begins a script that waits to be told to go: what it wrote before the answer to our request was read could be lost in the SDK's
buffer."""

# Takes out of the environment what nobody asked for ($1), and runs the rest.
SUPERVISE = (
    TOLD
    + """
unset $1
shift
"""
    + scripts.SUPERVISE
)


class NotRunning(Unavailable):
    """The container has ended, is gone, or is paused."""


class Attached:
    """A command in a container with its three streams; closing it ends the command, and so does its `deadline`, in seconds.

    Raises `NotRunning` where no command can run there. Of a container that is paused meanwhile, dockerd says nothing more: no
    stream of it ends.
    """

    def __init__(
        self,
        client: docker.APIClient,
        container: str,
        command: Sequence[str],
        *,
        user: str,
        deadline: float | None = None,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        variables = dict(environment or {})
        try:
            self._id = client.exec_create(
                container, list(command), stdin=True, user=user, workdir=directory, environment=variables
            )["Id"]
            self._streams = Streams(_started(client, self._id))
        except APIError as error:
            if error.status_code not in {404, 409}:
                raise
            raise NotRunning(f"no command can run in container {container}: {error.explanation}") from None
        self.end_input = self._streams.end_input
        self.cut = self._streams.cut
        self.frames = self._streams.frames
        self._limit = Limit(deadline, self._streams.cut) if deadline else None

    def __enter__(self) -> Self:
        if self._limit:
            self._limit.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._limit:
            self._limit.__exit__()
        self._streams.close()

    @property
    def has_something(self) -> bool:
        """Whether there is output to be read, or the end of it."""
        return self._streams.has_something

    def send(self, data: bytes) -> None:
        with suppress(OSError):  # it has ended: how, its status says
            self._streams.send(data)

    def status(self) -> int:
        """Its exit status, once its streams have ended. Raises `TimeoutError` where its deadline has ended them."""
        if self._limit:
            self._limit.expect_not_interrupted("a command in a container")
            if self._limit.passed:
                raise TimeoutError
        found: dict[str, Any] = {}

        def ended() -> bool:
            try:
                found.update(self._client.exec_inspect(self._id))
            except NotFound:  # forgotten with the container's end
                found.update(Running=False, ExitCode=None)
            return not found["Running"]

        if not until(ended, seconds=10):
            raise UserError("docker does not report how a command ended")
        return int(found["ExitCode"] if found["ExitCode"] is not None else -1)


def _started(client: docker.APIClient, command: str) -> Any:
    """The connection of a command that is started."""
    if client.base_url.startswith("https://"):
        return upgraded(client, f"/exec/{command}/start", {}, {"Tty": False, "Detach": False})
    return client.exec_start(command, socket=True)


def attached_to(client: docker.APIClient, container: str) -> Any:
    """The connection of a container's main process."""
    parameters = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    if client.base_url.startswith("https://"):
        return upgraded(client, f"/containers/{container}/attach", parameters)
    return client.attach_socket(container, params=parameters)


class Streams:
    """The one connection that carries all three, in frames (Docker's API, *Attach to a container*)."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: socket | TlsStream = getattr(connection, "_sock", connection)
        self._socket.settimeout(None)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end_input(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(SHUT_WR)

    @property
    def has_something(self) -> bool:
        ready = select.poll()
        ready.register(self._socket.fileno(), select.POLLIN)
        return bool(ready.poll(0))

    def cut(self) -> None:
        """End all streams here, whoever waits for them."""
        with suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Each piece of output with its stream, until the command's end."""
        while header := self._read(8):
            kind, length = struct.unpack(">B3xI", header)
            yield kind, self._read(length)

    def _read(self, length: int) -> bytes:
        parts = []
        while length:
            try:
                part = self._socket.recv(min(length, 65536))
            except OSError:
                part = b""
            if not part:
                return b""
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self.end_input()
        for part in (getattr(self._connection, "_response", None), self._connection):
            if part:
                part.close()
