"""Servers as processes on this machine: the embedded default.

As root they run as the service account (see `account`), and so does all that is done to their files: root itself only makes the
directories above them, and removes those that are empty.
"""

import hashlib
import os
import pwd
import select
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import psycopg

from tde_replication.errors import CommandFailed, LoginFailed, Unavailable
from tde_replication.hosts import file_scripts as scripts
from tde_replication.hosts.account import PROJECT, is_only_for, local_root, service_account
from tde_replication.hosts.answer import LONGEST, Receiver, last_lines
from tde_replication.hosts.base import LOG, Postmaster
from tde_replication.hosts.files import DEADLINE, LOG_TAIL_BYTES, Ended, ScriptedHost
from tde_replication.hosts.local import scripts as local_scripts
from tde_replication.hosts.superuser import Connection, superuser
from tde_replication.hosts.worker import WORKERS, LocalWorker, run_to_its_end
from tde_replication.waiting import Limit

SOCKET_BYTES = 107
"""A socket's path may have no more (unix(7))."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""What a server or a client program inherits: nothing of ours (PG* variables, tokens), and messages in English."""
SOCKET_BYTES = 107
"""A socket's path may have no more (unix(7))."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_WAY = threading.Lock()


class LocalHost(ScriptedHost):
    address = "local"

    def __init__(self) -> None:
        self._account = service_account()
        self.account = self._account.name
        self.administrators = (pwd.getpwuid(os.geteuid()).pw_name,)

    def _execute(self, script: str, *arguments: str, content: bytes = b"", deadline: float = DEADLINE) -> Ended:
        try:
            if content or deadline > DEADLINE:
                return self._alone(script, *arguments, content=content, deadline=deadline)
            text = f"set -- {shlex.join(arguments)}\n{script}"
            command = self._account.command([])
            return WORKERS.ask(shlex.join(command), "", lambda: LocalWorker(command, ENVIRONMENT), text, deadline)
        except TimeoutError:
            raise Unavailable(f"this machine did not answer {self.account} within {deadline:g} s") from None
        except EOFError:
            raise Unavailable(f"a shell of {self.account} on this machine has ended unexpectedly") from None

    def _alone(self, script: str, *arguments: str, content: bytes, deadline: float) -> Ended:
        """In a shell of its own: no content can be taken for commands, and no long work keeps others waiting."""
        command = self._account.command(["/bin/sh", "-c", script, "sh", *arguments])
        return run_to_its_end(command, ENVIRONMENT, content, deadline)

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
            self._account.command(["/bin/sh", "-c", scripts.SUPERVISE, "supervise", *command]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory or "/",
            env=ENVIRONMENT | dict(environment or {}),
            start_new_session=True,
        )
        stdin, stdout, stderr = (cast("IO[bytes]", stream) for stream in (child.stdin, child.stdout, child.stderr))
        name = PurePosixPath(command[0]).name

        def end() -> None:
            os.killpg(child.pid, signal.SIGKILL)

        with ExitStack() as streams, Limit(deadline, end) as limit:
            for stream in (stdin, stdout, stderr):
                streams.callback(stream.close)
            output = Receiver(f"{name} on this machine", stdout, end)
            output.start()
            errors = last_lines()
            for raw in iter(lambda: stderr.readline(LONGEST), b""):
                errors.append(line := raw.decode(errors="replace"))
                if on_line:
                    on_line(line.rstrip("\n"))
            status = child.wait()
            output.join()
        limit.expect_not_interrupted(name)
        if limit.passed:
            raise CommandFailed(name, status, f"it did not end within {deadline:g} s")
        content = output.content()
        if status:
            raise CommandFailed(name, status, "".join(list(errors)[-20:]))
        return content.decode(errors="replace")

    def write(self, path: PurePosixPath, content: bytes, *, mode: int) -> None:
        self._make_way(Path(path.parent))
        super().write(path, content, mode=mode)

    def make_directory(self, path: PurePosixPath) -> None:
        self._make_way(Path(path))
        super().make_directory(path)

    def _make_way(self, path: Path) -> None:
        """Make, as root, what is missing of `path` where only root may, and give the last directory to the account.

        Only below directories that the account may not change: in its own, a link may take the place of what was looked at.
        """
        if not self._account.switches:
            return
        with _WAY:  # what another thread has made and not given away yet would be there, and not to be entered
            self._make_missing(path)

    def _make_missing(self, path: Path) -> None:
        missing = [place for place in (path, *path.parents) if not os.path.lexists(place)]
        if not missing:
            return
        # What is above the project decides what code runs here: it is trusted already.
        looked_at = [at for at in missing[-1].parents if at not in PROJECT.parents]
        if not all(is_only_for(at, {0, PROJECT.stat().st_uid}) for at in looked_at):
            return
        with ExitStack() as opened:

            def enter(name: str, above: int | None) -> int:
                descriptor = os.open(name, DIRECTORY | (os.O_NOFOLLOW if above is not None else 0), dir_fd=above)
                opened.callback(os.close, descriptor)
                return descriptor

            descriptor = enter(str(missing[-1].parent), None)
            for place in reversed(missing):
                # Under its name it may be entered from its first moment on: who asks meanwhile what is in it must be let in.
                draft = f".{place.name}.new"
                with suppress(FileExistsError):  # of a run that was killed
                    os.mkdir(draft, mode=0o700, dir_fd=descriptor)
                made = enter(draft, descriptor)
                if place == path:
                    os.fchown(made, self._account.uid, self._account.gid)
                else:
                    os.fchmod(made, 0o711)  # other accounts' things may be in there too: it may be passed through
                try:
                    os.stat(place.name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    os.rename(draft, place.name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
                else:  # another process has made the same way
                    os.rmdir(draft, dir_fd=descriptor)
                descriptor = enter(place.name, descriptor)
                if os.fstat(descriptor).st_uid != os.geteuid():
                    return  # the account's: it makes the rest

    def remove(self, path: PurePosixPath) -> None:
        there = any(os.path.lexists(place) for place in (path, path.with_name(f".{path.name}.new")))
        super().remove(path)
        if there:  # else another thread may just have made the directory above it, to put something there
            _prune(Path(path.parent))

    def start(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        self._execute(local_scripts.BURY, str(data_directory))
        log = data_directory.with_name(LOG)
        self.make_directory(log.parent)
        program, data = str(binaries / "postgres"), str(data_directory)
        sockets = socket_directory(data_directory)
        ended = self._alone(local_scripts.LAUNCH, str(log), program, data, str(sockets), content=b"", deadline=DEADLINE)
        self._done(log if ended.status == scripts.NOT_A_FILE else sockets, ended)
        return int(ended.output)

    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        found = self._asked(data_directory.with_name(LOG), scripts.TAIL, str(mark), str(LOG_TAIL_BYTES))
        return (found or b"").decode(errors="replace")

    def stop(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        del binaries  # a signal does what `pg_ctl stop` does, without its polling
        sockets = socket_directory(data_directory)
        found = self.postmaster(data_directory)
        if found:
            self._end(found, data_directory, deadline)
        if not found or found.lost:
            self._execute(local_scripts.SWEEP, str(data_directory), str(sockets))
        if sockets != data_directory.parent:
            self._execute(local_scripts.REMOVE_EMPTY, str(sockets))

    def _has_ended(self, found: Postmaster, data_directory: PurePosixPath, seconds: float) -> bool:
        """The kernel tells, without polling."""
        try:
            process = os.pidfd_open(found.pid)
        except ProcessLookupError:
            return True
        try:
            now = self.postmaster(data_directory)
            return now is None or now.pid != found.pid or bool(select.select([process], [], [], seconds)[0])
        finally:
            os.close(process)

    def connect(self, data_directory: PurePosixPath, database: str, **options: Any) -> Connection:
        found = self.postmaster(data_directory)
        if not found or found.lost:
            raise Unavailable(f"no server runs on {data_directory}")
        if found.socket_directory.startswith("@") or not found.socket_directory:
            raise LoginFailed(
                f"the server on {data_directory} has no socket in a directory: set unix_socket_directories, and restart it"
            )
        try:
            return superuser(found.socket_directory, found.port, database, requirepeer=self.account, **options)
        except psycopg.OperationalError as error:
            raise LoginFailed(f"the server on {data_directory} does not answer: {str(error).strip()}") from None


def socket_directory(data: PurePosixPath) -> PurePosixPath:
    """Where a server's socket lies: in a directory of the account's own, so that nobody else can listen in its place.

    That is the one that its data lies in; where its path is too long for a socket, or cannot be an element of a list of
    directories, one with a short name.
    """
    beside = str(data.parent)
    is_element = beside == beside.strip() and not {",", '"'} & set(beside)
    if is_element and len(os.fsencode(data.parent / ".s.PGSQL.65535.lock")) <= SOCKET_BYTES:
        return data.parent
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return PurePosixPath(f"/tmp/tde-{service_account().uid}-{digest}")  # noqa: S108 - mode 0700, and looked at before each start


def _prune(directory: Path) -> None:
    """What `up` made on the way to a server goes with the last thing in it, up to the project's own root.

    As whoever runs this, for some of it is root's; no link is followed on the way down, and only what is empty goes.
    """
    root = local_root(PROJECT)
    if root not in (directory, *directory.parents):
        return
    steps: list[tuple[int, str]] = []
    with ExitStack() as opened:
        descriptor = os.open(root.parent, DIRECTORY)
        opened.callback(os.close, descriptor)
        for name in (root.name, *directory.relative_to(root).parts):
            steps.append((descriptor, name))
            try:
                descriptor = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError:
                break
            opened.callback(os.close, descriptor)
        for above, name in reversed(steps):
            try:
                os.rmdir(name, dir_fd=above)
            except FileNotFoundError:
                continue
            except OSError:
                return
