"""A unix socket of this machine that leads, through ssh and sudo, to the unix socket of a server on another.

libpq connects to it as to a server's own, and the server sees its own account: peer authentication. No port is opened on
either machine, and the socket lies in a directory of this user's alone, just until libpq has connected.
"""

import os
import secrets
import selectors
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, cast

from tde_replication.errors import LoginFailed, Unavailable, UserError
from tde_replication.hosts.file_scripts import ABSENT, SOCKET
from tde_replication.hosts.ssh.connections import NotJoined
from tde_replication.hosts.ssh.login import CONNECT_SECONDS
from tde_replication.hosts.ssh.openssh import Errors, Shell
from tde_replication.hosts.ssh.refusals import refusal
from tde_replication.hosts.superuser import Intake

CHUNK = 65_536

# $1 data directory; the relays, for what is installed there.
CONNECT = (
    SOCKET
    + """
if perl -MSocket -e 1 2>/dev/null; then exec perl -e "$2" "$socket"; fi
for python in python3 /usr/libexec/platform-python; do
    if command -v "$python" >/dev/null; then exec "$python" -c "$3" "$socket"; fi
done
if command -v socat >/dev/null; then exec socat - "UNIX-CONNECT:$socket"; fi
echo "none of perl, python3 and socat is installed there" >&2
exit 1
"""
)
PERL = """
use strict; use Socket;
socket(my $server, AF_UNIX, SOCK_STREAM, 0) or die "$!\\n";
connect($server, pack_sockaddr_un($ARGV[0])) or die "$!\\n";
my @ways = ([\\*STDIN, $server], [$server, \\*STDOUT]);
while (1) {
    my $ready = "";
    vec($ready, fileno($_->[0]), 1) = 1 for @ways;
    select($ready, undef, undef, undef);
    for (@ways) {
        my ($from, $to) = @$_;
        next unless vec($ready, fileno($from), 1);
        sysread($from, my $data, 65536) or exit;
        while (length $data) { substr($data, 0, syswrite($to, $data) || exit) = ""; }
    }
}
"""
PYTHON = """
import os, select, socket, sys
server = socket.socket(socket.AF_UNIX)
try:
    server.connect(sys.argv[1])
except OSError as error:
    sys.exit(error.strerror)
ways = {0: server.fileno(), server.fileno(): 1}
while True:
    for source in select.select(list(ways), [], [])[0]:
        data = os.read(source, 65536)
        if not data:
            sys.exit()
        while data:
            data = data[os.write(ways[source], data):]
"""


class Bridge:
    """One way to the server on `data_directory`: for one connection, and gone with it."""

    port = 5432
    """Only a part of the socket's name."""

    def __init__(self, shell: Shell, data_directory: PurePosixPath) -> None:
        self._shell = shell
        self._data = data_directory
        self._marker = f"--{secrets.token_hex(8)}--"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the thread
        self._errors = Errors(self._marker, None)
        self.intake = Intake()
        self.directory = Path(tempfile.mkdtemp(prefix="tde-"))
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(self.directory / f".s.PGSQL.{self.port}"))
        self._door.listen(1)
        try:
            arguments = [str(data_directory), PERL, PYTHON]
            self._relay = shell.start(CONNECT, arguments, self._marker, errors=self._said.fileno())
        except (UserError, NotJoined):
            self.close_door()
            self._said.close()
            raise
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close_door(self) -> None:
        """Let nobody else in: one has come, or none will."""
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # wakes the thread, where it still waits
        self._door.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def reason(self, otherwise: str) -> UserError:
        """Why the server could not be connected to; `otherwise` is what libpq says. Raises `NotJoined` where nothing was sent."""
        self.close_door()
        self._thread.join(CONNECT_SECONDS)
        if not self._errors.begun:
            self._shell.expect_joined(self._relay, self._errors.before)
            return refusal(self._shell.login, self._relay.returncode or 0, self._errors.before)
        if self._errors.status == ABSENT:
            return Unavailable(f"no server runs on {self._data}")
        cause = "".join(self._errors.own).strip() or otherwise
        return LoginFailed(f"the server on {self._data} does not answer: {cause}")

    def _serve(self) -> None:
        try:
            caller, _ = self._door.accept()
            with caller:
                self._pump(caller)
        except OSError:
            pass  # either end went: so does the other
        finally:
            self._end()

    def _pump(self, caller: socket.socket) -> None:
        """Carry bytes both ways until one end closes; what the login printed is left out."""
        stdin, stdout = (cast("IO[bytes]", stream).fileno() for stream in (self._relay.stdin, self._relay.stdout))
        mark = f"{self._marker}\n".encode()
        printed: bytes | None = b""
        with selectors.DefaultSelector() as ready:
            ready.register(caller, selectors.EVENT_READ)
            ready.register(stdout, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    data = os.read(key.fd, CHUNK)
                    if not data:
                        return
                    if key.fileobj is caller:
                        self.intake.begin()
                        while data:
                            data = data[os.write(stdin, data) :]
                        continue
                    self.intake.take(data)
                    if printed is None:
                        caller.sendall(data)
                    elif mark in (printed := printed + data):
                        caller.sendall(printed.partition(mark)[2])
                        printed = None

    def _end(self) -> None:
        for stream in (self._relay.stdin, self._relay.stdout):
            with suppress(OSError):
                cast("IO[bytes]", stream).close()
        try:
            self._relay.wait(CONNECT_SECONDS)
        except subprocess.TimeoutExpired:
            self._relay.kill()
            self._relay.wait()
        with self._said:
            self._said.seek(0)
            for line in self._said:
                self._errors.take(line.decode(errors="replace"))
