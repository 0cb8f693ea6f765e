"""Where test clusters lie: a directory for each, locked by the process that uses it. So the next one finds those of the dead.

The kernel's lock ends with its process, however that ends, and no other process with the same number is taken for it. In the
directory are the servers' data, and the state of the stack that made them: nothing is looked for anywhere else.
"""

import fcntl
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tde_replication.errors import UserError
from tde_replication.hosts.account import service_account

PORTS = range(20000, 32000)
"""Below those that the kernel gives to clients (ip_local_port_range), so that none of them takes one meanwhile."""


def root() -> Path:
    """That of this user's test clusters, below TMPDIR. Raises `UserError` where another account could put something there."""
    place = Path(tempfile.gettempdir()) / f"tde-tests-{os.geteuid()}"
    with suppress(FileExistsError):
        place.mkdir()
        place.chmod(0o711)  # whatever the umask: the servers' account goes through
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UserError(f"{place} is not a directory that this user alone may change: remove it, or set TMPDIR")
    return place


@contextmanager
def new() -> Iterator[tuple[Path, int]]:
    """A directory of this process, with `servers` for those who run them, and its lock. It stays where its stack could not be
    destroyed."""
    place, lock = _locked()
    try:
        place.mkdir()
        place.chmod(0o711)
        servers = place / "servers"
        servers.mkdir(mode=0o700)
        account = service_account()
        os.chown(servers, account.uid, account.gid)
        yield place, lock
    finally:
        forget(place, lock)


def _locked() -> tuple[Path, int]:
    """A directory that nobody has. Whoever sweeps may find the file first and take its lock: then another one."""
    while True:
        place = root() / f"t{secrets.token_hex(4)}"
        if (lock := _lock(place.with_name(f"{place.name}.lock"))) is not None:
            return place, lock


def left() -> Iterator[Path]:
    """The directories of processes that have ended, each locked while it is the caller's turn."""
    for file in sorted(root().glob("t*.lock")):
        if (lock := _lock(file)) is not None:
            place = file.with_suffix("")
            try:
                yield place
            finally:
                forget(place, lock)


def remove(place: Path) -> None:
    """After its stack is destroyed."""
    if place.exists():
        shutil.rmtree(place)


def forget(place: Path, lock: int) -> None:
    """Give the lock back, and its file away where nothing is left that it stands for."""
    if not place.exists():
        place.with_name(f"{place.name}.lock").unlink(missing_ok=True)
    os.close(lock)
    _ports()


def _lock(file: Path) -> int | None:
    """None: another process has it, or has just removed it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == file.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _ports() -> Path:
    """The directory of a file for each port that is in use, without those of processes that were killed."""
    place = root() / "ports"
    place.mkdir(mode=0o700, exist_ok=True)
    for file in place.iterdir():
        if (lock := _lock(file)) is not None:
            file.unlink()
            os.close(lock)
    return place


@contextmanager
def ports(count: int) -> Iterator[list[int]]:
    """So many free ports of the loopback, which no other test cluster of this user is given meanwhile."""
    place, held = _ports(), dict[int, int]()
    try:
        for port in secrets.SystemRandom().sample(PORTS, len(PORTS)):
            if len(held) == count:
                break
            if (lock := _lock(place / str(port))) is None:
                continue
            held[port] = lock
            if not _is_free(port):
                _give_back(place, port, held.pop(port))
        if len(held) < count:
            raise UserError(f"there are no {count} free ports between {PORTS.start} and {PORTS.stop}")
        yield list(held)
    finally:
        for port, lock in held.items():
            _give_back(place, port, lock)


def _give_back(place: Path, port: int, lock: int) -> None:
    (place / str(port)).unlink()
    os.close(lock)


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
