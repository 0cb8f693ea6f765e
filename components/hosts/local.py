"""Servers as processes on this machine: the embedded default.

As root they run as the service account (see `account`). Everything here is synchronous and waits on events where the kernel
offers one; the rest is polled in milliseconds.
"""

import errno
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, ParamSpec, TypeVar, cast

import psycopg
from psycopg.conninfo import make_conninfo

from components.errors import CommandFailed, LoginFailed, Problem, Refused, Unavailable
from components.hosts.account import local_root, service_account
from components.hosts.addresses import reached_locally
from components.hosts.base import LOG, READY, FileStatus, Host, Postmaster
from components.hosts.installation import find_installation
from components.hosts.site import Site, Surroundings
from components.hosts.superuser import Connection, superuser
from components.settings import SUPPORTED, Server
from components.waiting import until

PROJECT = Path(__file__).resolve().parents[2]
LOG_TAIL_BYTES = 16_384
BROKEN = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EBUSY}
"""What a file system may say to any operation that is right."""
PORT_LINE, SOCKET_LINE = 3, 4  # of postmaster.pid, counted from 0 (PostgreSQL's miscadmin.h)
BURIAL_DEADLINE = 10.0
"""Seconds for the children of a killed postmaster to notice."""
SOCKETS = "/tmp"  # noqa: S108 - shared, so clients ask who listens (requirepeer)

# Runs "$@" and ends its whole group when standard input closes, that is when the process that asked for it is gone, however
# it went: a base backup whose caller was killed must not go on holding its slot. No setting is part of this script.
SUPERVISE = """
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ read -r _ <&3; kill -s KILL -- -$$; } 2>/dev/null &
watcher=$!
wait "$child"
status=$?
kill "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
exit "$status"
"""


P = ParamSpec("P")
T = TypeVar("T")


def _told(method: Callable[P, T]) -> Callable[P, T]:
    """Say in a sentence that a file is another account's, or that its file system is full or broken."""

    @wraps(method)
    def asked(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return method(*arguments, **options)
        except PermissionError as error:
            user = pwd.getpwuid(os.geteuid()).pw_name
            raise Problem(f"{error.filename}: {user}, who runs this, has no permission there") from None
        except OSError as error:
            if error.errno not in BROKEN:
                raise
            place = error.filename or arguments[1]
            raise Problem(f"{place}: {error.strerror}") from None

    return asked


class LocalHost(Host):
    address = "local"

    def __init__(self) -> None:
        self._account = service_account()
        self.account = self._account.name
        self.administrators = (pwd.getpwuid(os.geteuid()).pw_name,)

    def _as_account(self, command: Sequence[str]) -> list[str]:
        """The same command as the account. setpriv does it, for Python's own way forks, which gRPC in this process minds."""
        if not self._account.switches:
            return list(command)
        ids = (f"--reuid={self._account.uid}", f"--regid={self._account.gid}")
        return ["setpriv", *ids, "--init-groups", "--", *command]

    def _own(self, descriptor: int) -> None:
        """Give the account what is open: a path in a directory of its own may lead elsewhere by now."""
        if self._account.switches:
            os.fchown(descriptor, self._account.uid, self._account.gid)

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: float,
        directory: PurePosixPath | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        child = subprocess.Popen(
            self._as_account(["/bin/sh", "-c", SUPERVISE, "supervise", *command]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory or "/",
            env=_environment() | dict(environment or {}),
            start_new_session=True,
            text=True,
            errors="replace",
        )
        stdin, stdout, stderr = (cast("IO[str]", stream) for stream in (child.stdin, child.stdout, child.stderr))
        late = threading.Event()

        def give_up() -> None:
            late.set()
            os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(deadline, give_up)
        timer.start()
        try:
            output: list[str] = []
            reader = threading.Thread(target=lambda: output.append(stdout.read()))
            reader.start()
            errors = []
            for line in stderr:
                errors.append(line)
                if on_line:
                    on_line(line.rstrip("\n"))
            status = child.wait()
            reader.join()
        finally:
            timer.cancel()
            stdin.close()
            stdout.close()
            stderr.close()
        name = PurePosixPath(command[0]).name
        if late.is_set():
            raise CommandFailed(name, status, f"it did not end within {deadline:g} s")
        if status:
            raise CommandFailed(name, status, "".join(errors[-20:]))
        return "".join(output)

    @_told
    def read(self, path: PurePosixPath) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @_told
    def status(self, path: PurePosixPath) -> FileStatus | None:
        try:
            found = Path(path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        kind: Literal["file", "directory", "other"]
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
        try:
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            owner = str(found.st_uid)
        return FileStatus(kind, owner, stat.S_IMODE(found.st_mode))

    @_told
    def listing(self, path: PurePosixPath) -> list[str]:
        try:
            return sorted(entry.name for entry in Path(path).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    @_told
    def write(self, path: PurePosixPath, content: bytes, *, mode: int) -> None:
        target = Path(path)
        self.make_directory(path.parent)
        draft = _draft(target)
        draft.unlink(missing_ok=True)  # of a run that was killed
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(descriptor, mode)
                self._own(descriptor)
                os.fsync(descriptor)
            draft.rename(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _flush(target.parent)

    @_told
    def make_directory(self, path: PurePosixPath) -> None:
        missing = [parent for parent in (Path(path), *Path(path).parents) if not parent.exists()]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            with _opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
                # Directories on the way to the servers' own may hold other accounts' things: those may be passed through.
                if directory != Path(path) and self._account.switches:
                    os.fchmod(descriptor, 0o711)
                else:
                    self._own(descriptor)

    @_told
    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        if os.path.lexists(new):  # a link that points nowhere would be overwritten
            raise Problem(f"{old} was not moved to {new}: that exists already")
        Path(old).rename(new)
        _flush(Path(new).parent)

    @_told
    def remove(self, path: PurePosixPath) -> None:
        target = Path(path)
        if not any(map(_is_there, (target, _draft(target)))):
            return  # another thread may just have made the directory above it, to put something there
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            with suppress(NotADirectoryError):  # nor is anything there below a file
                target.unlink(missing_ok=True)
                _draft(target).unlink(missing_ok=True)  # of a write that was killed
        root = local_root(PROJECT)
        # What `up` made on the way to a server goes with the last thing in it, up to the project's own root.
        for parent in target.parents:
            if root not in (parent, *parent.parents):
                break
            try:
                parent.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                break

    def launch(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        _bury(Path(data_directory))
        log = _log(data_directory)
        self.make_directory(PurePosixPath(log.parent))
        with _opened(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as output:
            self._own(output)
            mark = os.fstat(output).st_size
            # setsid --fork hands the server to init: it outlives us, and nobody here has to wait for it.
            subprocess.run(
                self._as_account(["setsid", "--fork", str(binaries / "postgres"), "-D", str(data_directory)]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=_environment(),
                check=True,
            )
        return mark

    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        with _opened(_log(data_directory), os.O_RDONLY) as log:
            size = os.fstat(log).st_size
            return os.pread(log, LOG_TAIL_BYTES, max(mark, size - LOG_TAIL_BYTES)).decode(errors="replace")

    def postmaster(self, data_directory: PurePosixPath) -> Postmaster | None:
        lines = (self.read(data_directory / "postmaster.pid") or b"").decode(errors="replace").splitlines()
        try:
            pid = int(lines[0])
            # The postmaster's working directory is its data directory: a recycled pid is not taken for it.
            if not Path(f"/proc/{pid}/cwd").samefile(data_directory):
                return None
            return Postmaster(pid, int(lines[PORT_LINE]), lines[SOCKET_LINE], lines[-1].strip() == READY)
        except (IndexError, ValueError):
            return None  # it is being written, or is none
        except OSError:
            return None  # no such process

    def halt(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        del binaries  # a signal does what `pg_ctl stop` does, without its polling
        for number in (signal.SIGINT, signal.SIGQUIT):
            found = self.postmaster(data_directory)
            if not found:
                self._sweep(data_directory)
                return
            try:
                process = os.pidfd_open(found.pid)
            except ProcessLookupError:
                return
            try:
                signal.pidfd_send_signal(process, number)
                if select.select([process], [], [], deadline)[0]:
                    return
            except ProcessLookupError:
                return
            finally:
                os.close(process)
        raise Problem(f"the server on {data_directory} did not stop within {2 * deadline:g} s")

    def _sweep(self, data_directory: PurePosixPath) -> None:
        """Remove the socket that a killed server left; its lock file names the data directory it was for."""
        lines = (self.read(data_directory / "postmaster.pid") or b"").decode(errors="replace").splitlines()
        if len(lines) > SOCKET_LINE and lines[SOCKET_LINE]:
            socket = PurePosixPath(lines[SOCKET_LINE]) / f".s.PGSQL.{lines[PORT_LINE]}"
            lock = socket.with_name(f"{socket.name}.lock")
            owner = (self.read(lock) or b"").decode(errors="replace").splitlines()
            if owner[1:2] == [str(data_directory)]:
                self.remove(socket)
                self.remove(lock)

    def connect(self, data_directory: PurePosixPath, database: str, **options: Any) -> Connection:
        found = self.postmaster(data_directory)
        if not found:
            raise Unavailable(f"no server runs on {data_directory}")
        if found.socket_directory.startswith("@") or not found.socket_directory:
            raise LoginFailed(
                f"the server on {data_directory} has no socket in a directory: set unix_socket_directories, and restart it"
            )
        sockets = str(data_directory / found.socket_directory)  # a relative one counts from there
        try:
            return superuser(sockets, found.port, database, requirepeer=self.account, **options)
        except psycopg.OperationalError as error:
            raise LoginFailed(f"the server on {data_directory} does not answer: {str(error).strip()}") from None


def open_host(address: str) -> Host:
    """Local is local: the address says no more."""
    del address
    return LocalHost()


def declare(server: Server, port: int, around: Surroundings) -> Site:
    """A server on this machine: the stack's directory below the project's own root, sockets in /tmp (PostgreSQL's default)."""
    installation = find_installation(PROJECT, server.binaries, SUPPORTED)
    return Site(
        address="local",
        data=PurePosixPath(server.data_directory or local_root(PROJECT) / around.stack / server.name / "data"),
        binaries=PurePosixPath(installation.binaries),
        port=port,
        reach=reached_locally(server.listen),
        clients=(server.address,) if server.address else (),
        dsn=make_conninfo(
            host=SOCKETS, port=port, user="postgres", dbname="postgres", requirepeer=service_account().name
        ),
        server=str(installation),
        has_pg_tde=installation.has_pg_tde,
        version=installation.major,
        version_setting="binaries",
        parameters={"unix_socket_directories": SOCKETS},
    )


def _bury(data: Path) -> None:
    """Remove the lock files of a postmaster that was killed and whose parent has not taken notice (an init that is slow, or a
    container without one): PostgreSQL takes a zombie for a running server. Its last child must have gone before."""
    lock = data / "postmaster.pid"
    try:
        pid, _, _, port, sockets, *_ = lock.read_text().splitlines()
        status = Path(f"/proc/{int(pid)}/stat").read_text()
    except (OSError, ValueError):
        return
    if status.rpartition(")")[2].split()[0] != "Z":
        return
    if until(lambda: not _somebody_works_in(data), seconds=BURIAL_DEADLINE):
        for file in (Path(sockets) / f".s.PGSQL.{port}.lock", lock):
            with suppress(FileNotFoundError):
                if file.read_text().split()[0] == pid:
                    file.unlink()


def _somebody_works_in(directory: Path) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is another account's
            if (process / "cwd").samefile(directory):
                return True
    return False


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of what is there itself: the account may have put a link in its place. A new file has mode 0600."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if not path.is_symlink():
            raise
        raise Refused(f"{path} is a link, and none is followed there: move it away") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _draft(file: Path) -> Path:
    return file.with_name(f".{file.name}.new")


def _log(data_directory: PurePosixPath) -> Path:
    return Path(data_directory).with_name(LOG)


def _environment() -> dict[str, str]:
    """What a server or a client program inherits: nothing of ours (PG* variables, tokens), and messages in English."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _flush(directory: Path) -> None:
    """Make a new or renamed entry of `directory` outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)  # by a link too, as where it was written to
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
