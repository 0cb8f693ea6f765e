"""Commands inside containers: their streams, and a container to run them in where the server's does not run.

Everything goes through ``docker exec`` (0.06 s; so does Docker's own way for files), into the server's container or, while that
is down, into a helper on the same volume, image and networks (0.5 s to start, so it is kept for a second). A container per
command would cost 0.5 s for each of the some twenty that make a standby.
"""

import os
import secrets
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from socket import SHUT_RDWR, SHUT_WR, socket
from typing import Any, Self

import docker
from docker import utils
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from tde_replication.errors import Unavailable, UserError
from tde_replication.hosts import file_scripts as scripts
from tde_replication.hosts.docker.tls import TlsStream, upgraded
from tde_replication.waiting import Limit, until

STDOUT, STDERR = 1, 2
HELPER = "tde-replication.helper"
IDLE = 1.0
"""Seconds after which a helper is let go."""
LEFT_BEHIND = 60
"""Seconds after which a helper that was made and never started is nobody's."""
ACCOUNT = "postgres"
CUT = 10.0
"""Seconds that a command has to end after its own deadline."""

# Waits to be told to go: what a command wrote before the answer to our request was read could be lost in the SDK's buffer.
# Then takes out of the environment what nobody asked for ($1), and runs the rest.
SUPERVISE = (
    """
read -r _ || exit
unset $1
shift
"""
    + scripts.SUPERVISE
)

# The volume's first directory belongs to root. Ends with its standard input, so with the process that keeps it.
HELP = """
[ "$(stat -c %U -- "$1")" = "$2" ] || { chown -- "$2" "$1" && chmod 0700 -- "$1"; } || exit
echo ready
read -r _
"""


@contextmanager
def daemon() -> Iterator[docker.APIClient]:
    """A connection to dockerd, as DOCKER_HOST and its kin say. Raises `Unavailable`."""
    try:
        with _client(_version()) as client:
            yield client
    except NotFound as error:
        raise Unavailable(f"docker: {error.explanation}") from None
    except APIError as error:
        raise Unavailable(f"docker refuses: {error.explanation or error}") from None
    except (DockerException, RequestException) as error:
        raise Unavailable(
            f"docker does not answer at {os.environ.get('DOCKER_HOST', 'its default socket')} ({error}): start it, or set "
            "DOCKER_HOST"
        ) from None


def _client(version: str) -> docker.APIClient:
    client = docker.APIClient(version=version, **utils.kwargs_from_env())
    # With the CA of DOCKER_CERT_PATH, and not with that of REQUESTS_CA_BUNDLE, which requests would prefer.
    client.trust_env = not client.base_url.startswith("https://")
    return client


def instant(text: str) -> float:
    """Docker's times as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


@cache
def _version() -> str:
    """What this dockerd speaks; asked once, for it takes longer than the rest of a connection."""
    with _client(MINIMUM_DOCKER_API_VERSION) as client:
        return str(client.version(api_version=False)["ApiVersion"])


class Attached:
    """A command in a container with its three streams; closing it ends the command, and so does its `deadline`, in seconds.

    Of a container that is paused meanwhile, dockerd says nothing more: no stream of it ends.
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
        self._id = client.exec_create(
            container, list(command), stdin=True, user=user, workdir=directory, environment=dict(environment or {})
        )["Id"]
        self._streams = Streams(_started(client, self._id))
        self.end_input = self._streams.end_input
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
            raise UserError("docker does not say how a command ended")
        return int(found["ExitCode"] if found["ExitCode"] is not None else -1)


def _started(client: docker.APIClient, command: str) -> Any:
    """The connection of a command that is started."""
    if client.base_url.startswith("https://"):
        return upgraded(client, f"/exec/{command}/start", {}, {"Tty": False, "Detach": False})
    return client.exec_start(command, socket=True)


def _attached(client: docker.APIClient, container: str) -> Any:
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


@dataclass(frozen=True)
class ContainerSpec:
    """What a helper shares with the server's container."""

    name: str
    image: str
    volume: str
    directory: str
    """Where the volume is mounted."""
    networks: tuple[str, ...]
    """All: a base backup reaches its primary as the server does."""


class _Helper:
    """A container that lives as long as this process, or as its last use and a second: its main process reads what only this
    process could write, and dockerd removes it when that ends."""

    def __init__(self, place: ContainerSpec) -> None:
        self.place = place
        self.users = 0
        self.container = ""
        self.starting = threading.Lock()
        self.timer: threading.Timer | None = None
        self._streams: Streams | None = None

    def start(self, account: str) -> None:
        place = self.place
        with daemon() as client:
            _sweep(client, place.name)
            made = client.create_container(
                place.image,
                ["-c", HELP, "help", place.directory, account],
                entrypoint=["/bin/sh"],
                name=f"{place.name}-helper-{secrets.token_hex(4)}",
                user="root",
                stdin_open=True,
                labels={HELPER: place.name},
                healthcheck={"test": ["NONE"]},
                host_config=client.create_host_config(
                    binds={place.volume: {"bind": place.directory, "mode": "rw"}},
                    network_mode=place.networks[0],
                    auto_remove=True,
                    init=True,
                ),
            )["Id"]
            try:
                for network in place.networks[1:]:
                    client.connect_container_to_network(made, network)
                self._streams = Streams(_attached(client, made))
                client.start(made)
            except BaseException:
                client.remove_container(made, v=True, force=True)
                raise
        stream, said = next(self._streams.frames(), (STDERR, b""))
        if stream != STDOUT:
            self._streams.close()
            reason = said.decode(errors="replace").strip() or "it says nothing"
            raise UserError(f"the image of {place.name} cannot be worked with ({reason}): it needs sh and coreutils")
        self.container = made

    def stop(self) -> None:
        if self._streams:
            self._streams.close()


_helpers: dict[str, _Helper] = {}
_counting = threading.Lock()


@contextmanager
def helper(place: ContainerSpec, account: str) -> Iterator[str]:
    """The id of the helper of `place`, started where there is none."""
    with _counting:
        mine = _helpers.setdefault(place.name, _Helper(place))
        mine.users += 1
        if mine.timer:
            mine.timer.cancel()
    try:
        with mine.starting:
            if not mine.container:
                mine.start(account)
        yield mine.container
    finally:
        with _counting:
            mine.users -= 1
            if not mine.users:
                mine.timer = threading.Timer(IDLE, _let_go, [mine])
                mine.timer.daemon = True
                mine.timer.start()


def _let_go(one: _Helper) -> None:
    with _counting:
        if one.users:
            return
        _helpers.pop(one.place.name, None)
    one.stop()


def _sweep(client: docker.APIClient, name: str) -> None:
    """Remove what a killed process made and did not come to start: dockerd removes only what has run."""
    now = instant(client.info()["SystemTime"])
    for found in client.containers(all=True, filters={"label": f"{HELPER}={name}", "status": "created"}):
        if now - found["Created"] > LEFT_BEHIND:
            with suppress(APIError):
                client.remove_container(found["Id"], v=True, force=True)
