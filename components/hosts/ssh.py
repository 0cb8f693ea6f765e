"""Servers on machines that are reached by OpenSSH, run by their systemd: the kind of host for servers that people have.

A file operation is one small script and one round trip (see `openssh`). The scripts are constant; paths reach them as "$1".
They need what every Linux with systemd has: a POSIX sh, coreutils, findutils and util-linux.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from components.errors import Problem, Refused, Unavailable
from components.hosts.base import READY, FileStatus, Host, Postmaster
from components.hosts.bridge import Bridge
from components.hosts.local import SUPERVISE
from components.hosts.login import Login, connection_settings, known_host_keys
from components.hosts.openssh import Ended, Shell, failed
from components.hosts.ssh_connections import NotJoined, attempts
from components.hosts.superuser import Connection, superuser

if TYPE_CHECKING:
    from components.hosts.site import Site, Surroundings
    from components.settings import Server

DEADLINE = 60.0
"""Seconds for an operation that takes no time on a host that is well."""
REMOVAL_DEADLINE = 3600.0
LOG_TAIL_BYTES = 16_384
ABSENT = 44
EXISTS = 45
OTHER_DEVICE = 46
OWN_UNITS = "tde-"
"""What the names of units begin with that a stack makes."""

# "No such file" is an answer; a directory that may not be entered is none.
FIND = """
found=$(stat -c '%F|%U|%u|%a' -- "$1" 2>&1) || case $found in
    *": No such file or directory" | *": Not a directory") exit 44 ;;
    *) printf '%s\\n' "$found" >&2; exit 1 ;;
esac
"""
STATUS = FIND + """printf '%s' "$found" """
READ = FIND + """cat -- "$1" """
LISTING = FIND + """[ -d "$1" ] || exit 44; find -H "$1" -mindepth 1 -maxdepth 1 -printf '%f\\0' """
MAKE_DIRECTORY = """umask 077; mkdir -p -- "$1" """
# $1 directory, $2 name, $3 bytes, $4 mode: what came in part (a lost connection) is not put in place.
WRITE = """
set -e
umask 077
mkdir -p -- "$1"
draft=$1/.$2.new
rm -f -- "$draft"
set -C
trap 'rm -f -- "$draft"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$draft"
[ "$(wc -c <"$draft")" -eq "$3" ] || { echo "only a part of it arrived" >&2; exit 1; }
chmod -- "$4" "$draft"
sync -- "$draft"
mv -fT -- "$draft" "$1/$2"
sync -- "$1"
"""
# $1 old, $2 new, $3 directory of the new
RENAME = """
if [ -e "$2" ] || [ -L "$2" ]; then exit 45; fi
[ "$(stat -c %d -- "$1")" = "$(stat -c %d -- "$3")" ] || exit 46
mv -nT -- "$1" "$2" || exit
if [ -e "$1" ] || [ -L "$1" ]; then exit 45; fi
sync -- "$3"
"""
REMOVE = """rm -rf -- "$1" """
# The postmaster's working directory is its data directory: a recycled pid is not taken for it.
POSTMASTER = """
[ -e "$1/postmaster.pid" ] || exit 44
read -r pid <"$1/postmaster.pid"
[ "/proc/$pid/cwd" -ef "$1" ] || exit 44
cat -- "$1/postmaster.pid"
"""
RUN = """
cd -- "$1" || exit
shift
exec setsid --wait /bin/sh -c "$@"
"""
# Counted, not by the clock, which may be set meanwhile.
# $1 pid, $2 data directory, $3 seconds: until that process is gone, or is another's.
WAIT_FOR_END = """
left=$(($3 * 20))
while [ "/proc/$1/cwd" -ef "$2" ]; do
    [ "$left" -gt 0 ] || exit 44
    left=$((left - 1))
    sleep 0.05
done
"""
SIGNAL = """[ "/proc/$1/cwd" -ef "$2" ] || exit 0; kill -s "$3" "$1" """
# Not by systemctl, which may answer root alone. $1 pid, $2 unit
RUN_BY = """grep -qF -- "/${2%.service}.service" "/proc/$1/cgroup" """
BOOTED = "cat /etc/machine-id /proc/sys/kernel/random/boot_id 2>/dev/null || true"
NOW = "date +%s%6N"
AS_ROOT = '"$@"'


class SshHost(Host):
    """`address` is ``ssh://[user@]host[:port]?account=…&unit=…`` with ``key``, ``certificate``, ``known_hosts``, ``jump``."""

    administrators = ()

    def __init__(self, address: str) -> None:
        self.address = address
        self.login, more = Login.parse(address)
        self.account = self.login.account
        self.unit = more.get("unit", "")
        self._shell = Shell(self.login)

    @property
    def remains(self) -> str:
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

    @property
    def booted(self) -> bytes:
        """What tells this machine, since it was booted, from any other; empty where it does not answer."""
        try:
            return self._done("asking which machine it is", self._do(BOOTED))
        except Problem:
            return b""

    def _do(self, script: str, *arguments: str, deadline: float = DEADLINE, content: bytes | None = b"") -> Ended:
        try:
            return self._shell.execute(script, *arguments, deadline=deadline, content=content)
        except TimeoutError:
            raise Unavailable(f"{self.login} did not answer within {deadline:g} s") from None

    def _done(self, what: str, ended: Ended) -> bytes:
        if ended.status:
            raise Problem(f"{self.login}: {what} failed: {ended.errors.strip() or f'status {ended.status}'}")
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

    def read(self, path: PurePosixPath) -> bytes | None:
        ended = self._do(READ, str(path))
        return None if ended.status == ABSENT else self._done(f"reading {path}", ended)

    def status(self, path: PurePosixPath) -> FileStatus | None:
        ended = self._do(STATUS, str(path))
        if ended.status == ABSENT:
            return None
        form, owner, uid, mode = self._done(f"looking at {path}", ended).decode().split("|")
        kind: Literal["file", "directory", "other"]
        kind = "directory" if form == "directory" else "file" if form.startswith("regular") else "other"
        return FileStatus(kind, uid if owner == "UNKNOWN" else owner, int(mode, 8))

    def listing(self, path: PurePosixPath) -> list[str]:
        ended = self._do(LISTING, str(path))
        if ended.status == ABSENT:
            return []
        names = self._done(f"listing {path}", ended).split(b"\0")[:-1]
        return sorted(name.decode(errors="surrogateescape") for name in names)

    def write(self, path: PurePosixPath, content: bytes, *, mode: int) -> None:
        arguments = (str(path.parent), path.name, str(len(content)), f"{mode:o}")
        self._done(f"writing {path}", self._do(WRITE, *arguments, content=content))

    def make_directory(self, path: PurePosixPath) -> None:
        self._done(f"making {path}", self._do(MAKE_DIRECTORY, str(path)))

    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        ended = self._do(RENAME, str(old), str(new), str(new.parent))
        if ended.status == EXISTS:
            raise Problem(f"{old} was not moved to {new}: that exists already")
        if ended.status == OTHER_DEVICE:
            raise Problem(f"{old} was not moved to {new}: that is another file system")
        self._done(f"moving {old} to {new}", ended)

    def remove(self, path: PurePosixPath) -> None:
        self._done(f"removing {path}", self._do(REMOVE, str(path), deadline=REMOVAL_DEADLINE))

    def postmaster(self, data_directory: PurePosixPath) -> Postmaster | None:
        ended = self._do(POSTMASTER, str(data_directory))
        if ended.status:
            return None
        lines = ended.output.decode(errors="replace").splitlines()
        try:
            return Postmaster(int(lines[0]), int(lines[3]), lines[4], lines[-1].strip() == READY)
        except (IndexError, ValueError):
            return None  # it is being written

    def _as_root(self, *command: str) -> bytes:
        """One of systemd's commands: sudoers may allow just these."""
        become = shlex.split(self.login.become("root"))
        answer = self._shell.answer("root").encode()
        try:
            ended = self._shell.execute(AS_ROOT, *become, *command, deadline=DEADLINE, content=answer, as_login=True)
        except TimeoutError:
            raise Unavailable(f"{self.login} did not answer within {DEADLINE:g} s") from None
        if ended.status and "sudo" in ended.errors:
            raise self._shell.refusal(ended.status, ended.errors, "root")
        return self._done(" ".join(command[:2]), ended)

    def launch(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        del binaries, data_directory  # both are in the unit
        mark = int(self._done("asking for the time", self._do(NOW)))
        self._as_root("systemctl", "start", "--no-block", self.unit)
        return mark

    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        """From the journal; `mark` is microseconds since the epoch by the host's own clock."""
        del data_directory
        since = f"--since=@{mark // 1_000_000}.{mark % 1_000_000:06}"
        output = self._as_root("journalctl", "--unit", self.unit, since, "--output=cat", "--no-pager")
        return output[-LOG_TAIL_BYTES:].decode(errors="replace")

    def halt(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        del binaries
        found = self.postmaster(data_directory)
        if not found:
            return
        if not self._do(RUN_BY, str(found.pid), self.unit).status:
            self._as_root("systemctl", "stop", "--no-block", self.unit)
        elif not self.unit.startswith(OWN_UNITS):
            raise Refused(
                f"{self.login}: the unit {self.unit} does not run the server on {data_directory}, which is left running: name "
                "the one that does in host.unit"
            )
        for number in ("INT", "QUIT"):
            # By signal too: the server may have been started by hand, which our unit knows nothing of.
            self._do(SIGNAL, str(found.pid), str(data_directory), number)
            waited = self._do(
                WAIT_FOR_END,
                str(found.pid),
                str(data_directory),
                str(max(1, round(deadline))),
                deadline=deadline + DEADLINE,
            )
            if not waited.status:
                return
        raise Problem(f"{self.login}: the server on {data_directory} did not stop within {2 * deadline:g} s")

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
            return superuser(str(bridge.directory), bridge.port, database, connect_timeout=seconds, **options)
        except psycopg.OperationalError as error:
            raise bridge.reason(str(error).strip()) from None
        finally:
            bridge.close_door()


def open_host(address: str) -> Host:
    return SshHost(address)


@cache
def _is_one_machine(*addresses: str) -> bool:
    """Asked of every resource of a server whose address has changed."""
    two = [SshHost(address) for address in addresses]
    ours, theirs = (set(known_host_keys(connection_settings(one.login)).values()) for one in two)
    return bool(ours & theirs) and len({one.booted for one in two} - {b""}) <= 1


def declare(server: "Server", port: int, around: "Surroundings") -> "Site":
    """See `ssh_site`."""
    from components.hosts import ssh_site  # noqa: PLC0415 - not loaded where an address is all that is known

    return ssh_site.declare(server, port, around)
