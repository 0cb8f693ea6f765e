"""Servers on machines that are reached by OpenSSH, run by their systemd: the kind of host for servers that people have.

A file operation is one small script (`file_scripts`) and one round trip (see `openssh`).
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import psycopg

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.hosts.base import Host
from tde_replication.hosts.file_scripts import SUPERVISE
from tde_replication.hosts.files import DEADLINE, LOG_TAIL_BYTES, Ended, ScriptedHost
from tde_replication.hosts.ssh.bridge import Bridge
from tde_replication.hosts.ssh.connections import NotJoined, attempts
from tde_replication.hosts.ssh.login import Login, connection_settings, known_host_keys
from tde_replication.hosts.ssh.openssh import Shell, failed
from tde_replication.hosts.ssh.refusals import refusal
from tde_replication.hosts.superuser import Connection, superuser

OWN_UNITS = "tde-"
"""What the names of units begin with that a stack makes."""

RUN = """
cd -- "$1" || exit
shift
exec setsid --wait /bin/sh -c "$@"
"""
# Not by systemctl, which may answer root alone. $1 pid, $2 unit
RUN_BY = """[ -e "/proc/$1" ] || exit 1; grep -qF -- "/${2%.service}.service" "/proc/$1/cgroup" """
NO_MATCH = 1
BOOTED = "cat /etc/machine-id /proc/sys/kernel/random/boot_id 2>/dev/null || true"
NOW = "date +%s%6N"
AS_ROOT = '"$@"'


class SshHost(ScriptedHost):
    """`address` is ``ssh://[user@]host[:port]?account=…&unit=…``, with what else a `Login` has."""

    administrators = ()

    def __init__(self, address: str) -> None:
        self.address = address
        self.login, more = Login.parse(address)
        self.account = self.login.account
        self.unit = more.get("unit", "")
        self.label = f"{self.login}: "
        self._shell = Shell(self.login)

    @property
    def leftovers(self) -> str:
        """pulumi-command takes another machine for another way to the one it knows, and removes nothing there."""
        if not self.unit.startswith(OWN_UNITS):
            return ""
        return f"on {self.login}, the unit {self.unit} and the directory above the data stay, without data: remove them there"

    def is_same_place(self, other: Host) -> bool:
        """One name and port; or one host key, by which ssh knows a machine: it may be given another name or port. Machines that
        were copied with their keys are told apart while both answer."""
        if not isinstance(other, SshHost):
            return False
        if str(self.login).casefold() == str(other.login).casefold():
            return True
        return _is_one_machine(self.address, other.address)

    def expect_login(self) -> None:
        self._output("logging in", self._shell.execute(":", deadline=DEADLINE, as_login=True))

    @property
    def booted(self) -> bytes:
        """What tells this machine, since it was booted, from any other; empty where it does not answer."""
        try:
            return self._output("asking which machine it is", self._execute(BOOTED))
        except UserError:
            return b""

    def _execute(self, script: str, *arguments: str, content: bytes = b"", deadline: float = DEADLINE) -> Ended:
        try:
            return self._shell.execute(script, *arguments, deadline=deadline, content=content)
        except TimeoutError:
            raise Unavailable(f"{self.login} did not answer within {deadline:g} s") from None

    def _output(self, what: str, ended: Ended) -> bytes:
        if ended.status:
            raise UserError(f"{self.login}: {what} failed: {ended.errors.strip() or f'status {ended.status}'}")
        return ended.output

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: float,
        directory: PurePosixPath | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        name = PurePosixPath(command[0]).name
        variables = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"} | dict(environment or {})
        # A command with "=" in its path would be a variable to `env`; a shell of its own takes it as it is.
        clean = [
            "env",
            "-i",
            *(f"{key}={value}" for key, value in variables.items()),
            "/bin/sh",
            "-c",
            'exec "$@"',
            "sh",
        ]
        try:
            ended = self._shell.execute(
                RUN,
                *(str(directory or "/"), SUPERVISE, "supervise", *clean, *command),
                deadline=deadline,
                on_line=on_line,
            )
        except TimeoutError:
            raise failed(name, Ended(-9, b"", f"it did not end within {deadline:g} s")) from None
        if ended.status:
            raise failed(name, ended)
        return ended.output.decode(errors="replace")

    def _as_root(self, *command: str) -> bytes:
        """One of systemd's commands: sudoers may allow just these."""
        become = shlex.split(self.login.become("root"))
        answer = self._shell.answer("root").encode()
        try:
            ended = self._shell.execute(AS_ROOT, *become, *command, deadline=DEADLINE, content=answer, as_login=True)
        except TimeoutError:
            raise Unavailable(f"{self.login} did not answer within {DEADLINE:g} s") from None
        if ended.status and "sudo" in ended.errors:
            raise refusal(self.login, ended.status, ended.errors, "root")
        return self._output(" ".join(command[:2]), ended)

    def start(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        del binaries, data_directory  # both are in the unit
        now = self._output("asking for the time", self._execute(NOW)).strip()
        if not now.isdigit():
            raise UserError(f"{self.login} does not report its time")
        mark = int(now)
        self._as_root("systemctl", "start", "--no-block", self.unit)
        return mark

    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        """From the journal; `mark` is microseconds since the epoch by the host's own clock."""
        del data_directory
        since = f"--since=@{mark // 1_000_000}.{mark % 1_000_000:06}"
        output = self._as_root("journalctl", "--unit", self.unit, since, "--output=cat", "--no-pager")
        return output[-LOG_TAIL_BYTES:].decode(errors="replace")

    def stop(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        del binaries
        found = self.postmaster(data_directory)
        if not found:
            return
        by_unit = self._execute(RUN_BY, str(found.pid), self.unit)
        if not by_unit.status:
            self._as_root("systemctl", "stop", "--no-block", self.unit)
        elif by_unit.status != NO_MATCH:
            raise Unavailable(f"{self.login}: cannot tell what runs the server on {data_directory}: {by_unit.cause}")
        elif not self.unit.startswith(OWN_UNITS):
            raise Conflict(
                f"{self.login}: the unit {self.unit} does not run the server on {data_directory}, which is left running: name "
                "the one that does in host.unit"
            )
        # By signal too: the server may have been started by hand, which our unit knows nothing of.
        self._end(found, data_directory, deadline)

    def connect(self, data_directory: PurePosixPath, database: str, **options: Any) -> Connection:
        """By peer authentication as the account, over this ssh connection: no password, no port, no role of ours."""
        for left in attempts(self._shell.waiting, DEADLINE):
            with suppress(NotJoined):
                return self._connect(data_directory, database, max(2, round(left)), options)
        raise self._shell.full()

    def _connect(
        self, data_directory: PurePosixPath, database: str, seconds: int, options: dict[str, Any]
    ) -> Connection:
        bridge = Bridge(self._shell, data_directory)
        try:
            return superuser(
                str(bridge.directory), bridge.port, database, intake=bridge.intake, connect_timeout=seconds, **options
            )
        except psycopg.OperationalError as error:
            raise bridge.reason(str(error).strip()) from None
        finally:
            bridge.close_door()


@cache
def _is_one_machine(*addresses: str) -> bool:
    """Asked of every resource of a server whose address has changed."""
    two = [SshHost(address) for address in addresses]
    one_has, other_has = (set(known_host_keys(connection_settings(one.login)).values()) for one in two)
    return bool(one_has & other_has) and len({one.booted for one in two} - {b""}) <= 1
