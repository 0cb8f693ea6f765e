"""A container to run commands in where the server's does not run.

Everything goes through ``docker exec`` (0.06 s; so does Docker's own way for files; small scripts share one, see `shell`), into
the server's container or, while that is down, into a helper on the same volume, image and networks (0.5 s to start, so it is kept
for a second). A container per command would cost 0.5 s for each of the some twenty that make a standby.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import docker
from docker.errors import APIError

from tde_replication.errors import UserError
from tde_replication.hosts.docker.attached import Streams, attached_to
from tde_replication.hosts.docker.daemon import daemon, instant
from tde_replication.hosts.worker import STDERR, STDOUT, WORKERS

HELPER = "tde-replication.helper"
IDLE = 1.0
"""Seconds after which a helper is let go."""
LEFT_BEHIND = 60
"""Seconds after which a helper that was made and never started is nobody's."""
ACCOUNT = "postgres"


# The volume's first directory belongs to root. Ends with its standard input, so with the process that keeps it.
HELP = """
[ "$(stat -c %U -- "$1")" = "$2" ] || { chown -- "$2" "$1" && chmod 0700 -- "$1"; } || exit
echo ready
read -r _
"""


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
                self._streams = Streams(attached_to(client, made))
                client.start(made)
            except BaseException:
                client.remove_container(made, v=True, force=True)
                raise
        stream, said = next(self._streams.frames(), (STDERR, b""))
        if stream != STDOUT:
            self._streams.close()
            reason = said.decode(errors="replace").strip() or "it printed nothing"
            raise UserError(f"the image of {place.name} cannot be used ({reason}): it needs sh and coreutils")
        self.container = made

    def stop(self) -> None:
        WORKERS.forget(self.container)
        if self._streams:
            self._streams.close()


_helpers: dict[str, _Helper] = {}
_counting = threading.Lock()


@contextmanager
def helper(place: ContainerSpec, account: str) -> Iterator[str]:
    """The id of the helper container of `place`, which is started if it is not there."""
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
