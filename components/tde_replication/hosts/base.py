"""Where a server lives: what the reconcilers ask of a machine, whatever kind of machine it is.

A command is an argument vector that runs as the account that owns the server, never a shell line. Paths are the host's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from tde_replication.errors import UserError
from tde_replication.hosts.superuser import Connection

LOG = "postgresql.log"
"""A server's log, beside its data directory, on hosts where nothing else keeps one."""


@dataclass(frozen=True)
class FileStatus:
    """One directory entry; `mode` is its permission bits, `owner` the account's name."""

    kind: Literal["file", "directory", "other"]
    owner: str
    mode: int


@dataclass(frozen=True)
class Postmaster:
    """A running server, from its process and its postmaster.pid."""

    pid: int
    port: int
    """0: not known, as of a server that is just starting."""
    socket_directory: str
    """An absolute path; empty: not known."""
    ready: bool
    """Whether it says that it takes connections: it has started, and is consistent."""
    started: int = 0
    """When, in seconds since the epoch; 0: not known."""
    lost: bool = False
    """Whether its lock file or its whole data directory was removed or replaced under it: nobody can connect to it."""
    closed: bool = False
    """Whether it has started and says that it will take no connections: a standby whose hot_standby is off."""

    @classmethod
    def parse(cls, pid: int, data: PurePosixPath, lines: Sequence[str], *, lost: bool) -> "Postmaster":
        """From the lines of postmaster.pid, in which anything may stand that the server's account has written."""
        _, _, started, port, directory, _, _, state, *_ = [line.strip() for line in lines] + [""] * 8
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= len("65535") else 0
        return cls(
            pid,
            number if number < 2**16 else 0,
            _socket_directory(directory, data),
            state == READY,
            int(started) if started.isascii() and started.isdecimal() and len(started) < len(str(2**63)) else 0,
            lost,
            state == CLOSED,
        )


def _socket_directory(written: str, data: PurePosixPath) -> str:
    if not written or not written.isprintable():
        return ""
    return written if written.startswith(("/", "@")) else str(data / written)  # as the server counts it


READY, CLOSED = "ready", "standby"
"""What the eighth line of postmaster.pid says of a server that takes connections, or will take none (PostgreSQL's pidfile.h)."""


class Host(ABC):
    """One machine. Every method raises `Unavailable` when the machine cannot be reached."""

    address: str
    """How a resource's inputs name this host: ``local``, ``ssh://…``, ``docker://…``."""

    def is_same_place(self, other: "Host") -> bool:
        """Whether `other` is only another way to it (as another user, with another key)."""
        return self.address == other.address

    @property
    def leftovers(self) -> str:
        """What remains on this host after a server has moved away; empty if nothing does."""
        return ""

    def on(self, networks: Sequence[str]) -> list[str]:
        """Which of these networks a container is on; no other kind of host has networks that can be taken from it."""
        return list(networks)

    def join(self, network: str) -> None:
        """Bring a container back onto a network."""
        raise UserError(f"{self.address} is on no network {network}")

    def passing_address(self, seen_from: "Host") -> str | None:
        """Where `seen_from` reaches it now, as a number: of a container, whose name nobody knows while it is stopped. None where
        its name stays."""
        del seen_from
        return None

    def expect_login(self) -> None:
        """Raises `Unavailable` or `AccessDenied` where the machine lets nobody in, whatever account it has for the server."""
        self.status(PurePosixPath("/"))

    account: str
    """The account that commands run as and that owns what is written."""

    administrators: tuple[str, ...]
    """Accounts besides it that may be the superuser ``postgres`` by peer authentication, where we make the server."""

    @abstractmethod
    def run(
        self,
        command: Sequence[str],
        *,
        deadline: float,
        directory: PurePosixPath | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        """Run `command` to its end within `deadline` seconds and return its standard output.

        `on_line` gets each line of standard error as it comes. The whole process group ends with a missed deadline, and
        when the caller dies. Raises `CommandFailed`.
        """

    @abstractmethod
    def output(self, command: Sequence[str]) -> str:
        """The standard output of a short command that changes nothing. Raises `CommandFailed`."""

    @abstractmethod
    def look(
        self,
        *,
        statuses: Iterable[PurePosixPath] = (),
        contents: Iterable[PurePosixPath] = (),
        listings: Iterable[PurePosixPath] = (),
        servers: Iterable[PurePosixPath] = (),
        outputs: Iterable[Sequence[str]] = (),
    ) -> None:
        """Have all of this asked at once where answers are shared (see `facts`): what `status`, `read`, `listing`, `postmaster`
        and `output` then say, or raise, each for itself."""

    @abstractmethod
    def read(self, path: PurePosixPath, *, follow: bool = False) -> bytes | None:
        """The content of a regular file; None if there is no such file. A link is followed only with `follow`."""

    @abstractmethod
    def real(self, path: PurePosixPath) -> PurePosixPath:
        """Where a path leads, all links followed."""

    @abstractmethod
    def status(self, path: PurePosixPath) -> FileStatus | None: ...

    @abstractmethod
    def listing(self, path: PurePosixPath) -> list[str]:
        """The names in a directory, sorted; none where it does not exist. No name holds a slash or is "." or ".."."""

    @abstractmethod
    def write(self, path: PurePosixPath, content: bytes, *, mode: int) -> None:
        """Put a file in place whole or not at all, owned by the account; directories above it are made, mode 0700."""

    @abstractmethod
    def replace(self, path: PurePosixPath, content: bytes) -> None:
        """Put new content in the place of a file that others have made: owner, group, mode and extended attributes stay.

        Raises `Conflict` where the account cannot keep them.
        """

    @abstractmethod
    def make_directory(self, path: PurePosixPath) -> None:
        """Make a directory, mode 0700, and those above it. It may exist."""

    @abstractmethod
    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        """Move within one file system; `new` must not exist. Durable when it returns."""

    @abstractmethod
    def remove(self, path: PurePosixPath) -> None:
        """Remove a file or a whole directory. It may be gone already."""

    @abstractmethod
    def start(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        """Start the server, and return where its log stood; it may not answer yet, or may have died by then."""

    @contextmanager
    def stopped_soon(self) -> Iterator[None]:
        """The server is about to be stopped: have the way ready by which its files are then read."""
        yield

    @abstractmethod
    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        """What the server has written to its log since `start` returned `mark`, at most the last 16 KiB."""

    @abstractmethod
    def postmaster(self, data_directory: PurePosixPath) -> Postmaster | None:
        """The server that runs on this data directory; None where surely none does. A stale postmaster.pid is no server.

        Raises `Unavailable` where that cannot be told: nothing is taken away, started or promoted then.
        """

    def serves(self, data_directory: PurePosixPath) -> bool:
        """Whether a server runs on this data directory as it is now. Raises `Unavailable` where that cannot be told."""
        found = self.postmaster(data_directory)
        return found is not None and not found.lost

    @abstractmethod
    def stop(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        """Stop the server (fast shutdown, then immediate when `deadline` seconds have passed) and wait for its end."""

    @abstractmethod
    def connect(self, data_directory: PurePosixPath, database: str, **options: Any) -> Connection:
        """A superuser's autocommit connection to the server that runs on this data directory.

        Raises `Unavailable` where none runs or it does not accept connections.
        """
