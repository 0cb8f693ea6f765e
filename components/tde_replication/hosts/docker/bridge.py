"""A connection to the server in a container, as its superuser by peer authentication.

libpq connects to a socket of this machine that only this account can enter; a program in the container (`relay`) passes it on to
the server's own.
"""

import io
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from socket import AF_UNIX, SHUT_WR, socket
from typing import Any

import psycopg
from docker.errors import APIError

from tde_replication.errors import LoginFailed, Unavailable, UserError
from tde_replication.hosts.docker import relay
from tde_replication.hosts.docker.attached import CUT, Attached
from tde_replication.hosts.docker.containers import ACCOUNT
from tde_replication.hosts.docker.daemon import daemon
from tde_replication.hosts.file_scripts import ABSENT, SOCKET
from tde_replication.hosts.superuser import Connection, Intake, superuser
from tde_replication.hosts.worker import STDOUT

RELAY = "/opt/tde-replication/relay"
NO_RELAY = 46
"""An exit status of the script below."""

# Joins its streams to the socket of the server that postmaster.pid tells of; see `relay`.
CONNECT = f"""
read -r _ || exit
[ -x "$2" ] || exit {NO_RELAY}
{SOCKET}
exec "$2" "$socket"
"""


def connect(name: str, data_directory: PurePosixPath, database: str, options: Mapping[str, Any]) -> Connection:
    """Raises `Unavailable` where no server answers in the container of that name."""
    command = ["/bin/sh", "-c", CONNECT, "connect", str(data_directory), RELAY]
    try:
        return _bridged(name, command, database, options)
    except _NoRelayError:
        _put_relay(name)
        return _bridged(name, command, database, options)


def _bridged(name: str, command: Sequence[str], database: str, options: Mapping[str, Any]) -> Connection:
    """A connection through a socket of our own, which only this account can enter, to a process in the container."""
    directory = Path(tempfile.mkdtemp(prefix="tde-"))
    try:
        with socket(AF_UNIX) as listener:
            listener.bind(str(directory / ".s.PGSQL.5432"))
            listener.listen(1)
            bridge = _Bridge(name, command, listener)
            bridge.start()
            try:
                return superuser(str(directory), 5432, database, intake=bridge.intake, **options)
            except psycopg.OperationalError as error:
                bridge.join(CUT)  # that of a container that is paused meanwhile does not end
                if bridge.status == NO_RELAY:
                    raise _NoRelayError from None
                if bridge.status == ABSENT:
                    raise Unavailable(f"no server runs on {command[-2]} of {name}") from None
                # Without libpq's words on the way there, which is a socket of ours that is gone.
                cause = str(error).strip().rpartition(" failed: ")[2]
                raise LoginFailed(f"the server in {name} does not answer: {cause}") from None
    finally:
        shutil.rmtree(directory)


def _put_relay(name: str) -> None:
    with daemon() as client:
        architecture = client.info()["Architecture"]
        try:
            content = relay.program(architecture)
        except KeyError:
            raise UserError(f"containers on a {architecture} machine cannot be connected to") from None
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(RELAY.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        client.put_archive(name, "/", archive.getvalue())


class _NoRelayError(Exception):
    """The container is a new one."""


class _Bridge(threading.Thread):
    """Passes one connection on, until either side ends it."""

    def __init__(self, name: str, command: Sequence[str], listener: socket) -> None:
        super().__init__(daemon=True)
        self._name = name
        self._command = command
        self._listener = listener
        self.status: int | None = None
        self.intake = Intake()

    def run(self) -> None:
        try:
            local, _ = self._listener.accept()
        except OSError:
            return
        with local, suppress(UserError, APIError, OSError), daemon() as client:
            with Attached(client, self._name, self._command, user=ACCOUNT) as attached:
                attached.send(b"\n")
                upward = threading.Thread(target=self._send_all, args=(local, attached), daemon=True)
                upward.start()
                with suppress(OSError):
                    for stream, data in attached.frames():
                        if stream == STDOUT:
                            self.intake.take(data)
                            local.sendall(data)
                with suppress(OSError):
                    local.shutdown(SHUT_WR)
            self.status = attached.status()

    def _send_all(self, local: socket, attached: Attached) -> None:
        with suppress(OSError):
            while data := local.recv(65536):
                self.intake.begin()
                attached.send(data)
        attached.end_input()
