"""Connections that commands share (ssh_config(5), *ControlMaster*).

Each connection has a master process of its own, which ends by itself after a minute without a session. A command's `ssh` only
ever joins one: its end ends nothing that others use, and it never logs in by itself. So what an sshd refuses (by default more
than ten sessions on a connection, *MaxSessions*, and some of more than ten logins at a time, *MaxStartups*) is refused before
anything was sent, and can be tried again.
"""

import fcntl
import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tde_replication.errors import UserError
from tde_replication.hosts.ssh.login import NO_SSH, Login, connection_settings, environment
from tde_replication.hosts.ssh.private_directory import control
from tde_replication.progress import progress
from tde_replication.waiting import until

IDLE_SECONDS = 60
SESSIONS = 8
"""On one connection at once, where its sshd does not say that it takes fewer: another process may have some of its ten."""
CONNECTIONS = 16
"""To one machine."""
LOGINS = 4
"""To or through one machine at once."""
LOGIN_SECONDS = 60.0
PATIENCE = 15.0
"""Seconds in which a login or a session that was refused is tried again."""
FORGET_SECONDS = 30.0
"""A machine that went on refusing is asked just once by whoever asks within this time."""
UNSHARED = "tde-replication: no shared connection"
JOIN = {"ControlMaster": "no", "ProxyCommand": f"sh -c 'echo {UNSHARED} >&2'"}
"""In place of a connection of its own, a command whose `ssh` could not join one says so."""
BUSY = re.compile(
    r"(?:kex|ssh)_exchange_identification|Connection (?:closed|reset) by|Exceeded MaxStartups|Not allowed at this time"
)
"""How a login ends that an sshd refuses for there are too many."""


class NotJoined(Exception):
    """The connection took no session: nothing was sent."""


class LoginFailed(Exception):
    """`ssh` could not log in; `said` is its standard error."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code, self.said = code, said


@dataclass(eq=False)
class _Seat:
    """A place on a connection, for one command."""

    child: "subprocess.Popen[bytes] | None" = None

    @property
    def taken(self) -> bool:
        return self.child is None or self.child.poll() is None


@dataclass(eq=False)
class _Connection:
    path: Path
    """Its control socket."""
    sessions: int = SESSIONS
    shut_until: float = 0.0
    """It took no session, and none of them is ours: another process has them all."""
    seats: list[_Seat] = field(default_factory=list)
    starting: threading.Lock = field(default_factory=threading.Lock)
    failure: "LoginFailed | None" = None
    failed_at: float = 0.0

    def has_room(self) -> bool:
        self.seats = [seat for seat in self.seats if seat.taken]
        return len(self.seats) < self.sessions and time.monotonic() >= self.shut_until


class Connections:
    """All to one login."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._words = login.options()
        self._digest = hashlib.sha256("\0".join([*self._words, login.host]).encode()).hexdigest()[:16]
        self._choosing = threading.Lock()
        self._known: list[_Connection] = []

    def join(self, command: str, *, seconds: float, **streams: Any) -> "subprocess.Popen[bytes]":
        """Start `command` there on a connection that has room; one is opened if none has.

        Raises `LoginFailed`, and `TimeoutError` after `seconds`.
        """
        deadline = time.monotonic() + seconds
        connection, seat = self._take_seat()
        try:
            self._ensure(connection, deadline)
            words = [*_options(JOIN), *self._words, *_options({"ControlPath": connection.path})]
            seat.child = _ssh([*words, "--", self._login.host, command], **streams)
        except BaseException:
            with self._choosing:
                connection.seats.remove(seat)
            raise
        return seat.child

    def refused(self, child: "subprocess.Popen[bytes]") -> None:
        """Note that the connection of `child` took no session for it."""
        with self._choosing:
            for connection in self._known:
                if child in [seat.child for seat in connection.seats]:
                    others = sum(seat.taken and seat.child is not child for seat in connection.seats)
                    connection.sessions = max(1, min(others, connection.sessions))
                    connection.shut_until = 0.0 if others else time.monotonic() + 1

    def _take_seat(self) -> tuple[_Connection, _Seat]:
        seat = _Seat()
        with self._choosing:
            connection = next((one for one in self._known if one.has_room()), None)
            if connection is None:
                if len(self._known) == CONNECTIONS:
                    raise NotJoined
                connection = _Connection(control() / f"{self._digest}{len(self._known):x}")
                self._known.append(connection)
            connection.seats.append(seat)
        return connection, seat

    def _ensure(self, connection: _Connection, deadline: float) -> None:
        """Have its master. One that ended meanwhile was idle: what its sshd takes may be another number by now."""
        began = time.monotonic()
        with _held(connection.starting, deadline):
            if _answers(connection.path):
                return
            if connection.failure and connection.failed_at > began:
                raise connection.failure  # of who tried while this one waited
            connection.sessions = SESSIONS
            with ExitStack() as held:
                for machine in sorted(_machines(self._login)):
                    held.enter_context(_held(_LOGINS[machine], deadline))
                held.enter_context(_alone(connection.path, deadline))
                if not _answers(connection.path):
                    try:
                        self._log_in(connection.path, deadline)
                    except LoginFailed as failure:
                        connection.failure, connection.failed_at = failure, time.monotonic()
                        raise

    def _log_in(self, path: Path, deadline: float) -> None:
        path.unlink(missing_ok=True)  # of a master that was killed
        sharing = {"ControlMaster": "yes", "ControlPersist": str(IDLE_SECONDS), "ControlPath": path}
        with tempfile.TemporaryFile() as said:  # no pipe: the master may keep that open
            words = [*self._words, *_options(sharing), "-N", "--", self._login.host]
            master = _ssh(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
            try:
                code = master.wait(
                    max(0.0, min(LOGIN_SECONDS, deadline - time.monotonic()))
                )  # it goes on in the background
            except subprocess.TimeoutExpired:
                raise TimeoutError from None
            finally:
                if master.returncode is None:
                    os.killpg(master.pid, signal.SIGKILL)
                    master.wait()
            if code:
                said.seek(0)
                raise LoginFailed(code, said.read().decode(errors="replace"))


@cache
def connections(login: Login) -> Connections:
    return Connections(login)


def attempts(what: str, seconds: float, patience: float | None = None) -> Iterator[float]:
    """Yield what is left of `seconds`; again, with growing pauses and a word of `what` is waited for, until `patience` has
    passed."""
    began = time.monotonic()
    pause, patience = 0.1, PATIENCE if patience is None else patience
    while True:
        yield max(0.0, seconds - (time.monotonic() - began))
        pause *= random.uniform(1.2, 2)  # noqa: S311 - so that not all come again at once
        if time.monotonic() - began + pause > min(seconds, patience):
            return
        progress(f"waiting: {what}")
        time.sleep(pause)


_GAVE_UP: dict[Login, float] = {}
_LOGINS: defaultdict[str, threading.BoundedSemaphore] = defaultdict(lambda: threading.BoundedSemaphore(LOGINS))
"""By machine. Taken in the order of their names."""


def patience(login: Login) -> float:
    """How long to try again where `login` is refused for there are too many."""
    return 0.0 if time.monotonic() - _GAVE_UP.get(login, -FORGET_SECONDS) < FORGET_SECONDS else PATIENCE


def gave_up(login: Login) -> None:
    _GAVE_UP[login] = time.monotonic()


def _ssh(words: Sequence[str], **streams: Any) -> "subprocess.Popen[bytes]":
    command = ["ssh", *words]
    try:
        return subprocess.Popen(command, env=environment(), start_new_session=True, **streams)
    except FileNotFoundError:
        raise UserError(NO_SSH) from None


def _options(settings: Mapping[str, object]) -> list[str]:
    return [f"-o{name}={value}" for name, value in settings.items()]


@cache
def _machines(login: Login) -> frozenset[str]:
    """Those that a login to it connects to: itself, and all on the way."""
    settings = connection_settings(login)
    hops = {*login.jump, *",".join(settings.get("proxyjump", [])).split(",")} - {"", "none"}
    return frozenset({f"{settings['hostname'][0]}:{settings['port'][0]}", *(hop.rpartition("@")[2] for hop in hops)})


def _answers(path: Path) -> bool:
    """Whether a master listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def _held(lock: "threading.Lock | threading.BoundedSemaphore", deadline: float) -> Iterator[None]:
    if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise TimeoutError
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _alone(path: Path, deadline: float) -> Iterator[None]:
    """The one process that starts the master of a control socket: two would part."""
    locks = path.parent / "locks"
    locks.mkdir(mode=0o700, exist_ok=True)
    with (locks / path.name).open("w") as lock:

        def locked() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not until(locked, seconds=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        yield
