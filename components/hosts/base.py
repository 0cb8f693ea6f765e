"""Where a server lives: what the reconcilers ask of a machine, whatever kind of machine it is.

A command is an argument vector that runs as the account that owns the server, never a shell line. Paths are the host's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from components.hosts.superuser import Connection

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
    """A running server, from its postmaster.pid."""

    pid: int
    port: int
    socket_directory: str
    ready: bool
    """Whether it says that it takes connections: it has started, and is consistent."""


READY = "ready"
"""What the last line of postmaster.pid says of a server that takes connections (PostgreSQL's pidfile.h)."""


class Host(ABC):
    """One machine. Every method raises `Unavailable` when the machine cannot be reached."""

    address: str
    """How a resource's inputs name this host: ``local``, ``ssh://…``, ``docker://…``."""

    def is_same_place(self, other: "Host") -> bool:
        """Whether `other` is only another way to it (as another user, with another key)."""
        return self.address == other.address

    @property
    def remains(self) -> str:
        """What a server that moves elsewhere leaves on it; empty: nothing."""
        return ""

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
    def read(self, path: PurePosixPath) -> bytes | None:
        """The content of a file, or None where there is none."""

    @abstractmethod
    def status(self, path: PurePosixPath) -> FileStatus | None: ...

    @abstractmethod
    def listing(self, path: PurePosixPath) -> list[str]:
        """The names in a directory, sorted; none where it does not exist."""

    @abstractmethod
    def write(self, path: PurePosixPath, content: bytes, *, mode: int) -> None:
        """Put a file in place whole or not at all, owned by the account; directories above it are made, mode 0700."""

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
    def launch(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        """Start the server, and return where its log stood; it may not answer yet, or may have died by then."""

    @abstractmethod
    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        """What the server has written to its log since `launch` returned `mark`, at most the last 16 KiB."""

    @abstractmethod
    def postmaster(self, data_directory: PurePosixPath) -> Postmaster | None:
        """The server that runs on this data directory, or None. A stale postmaster.pid is no server."""

    @abstractmethod
    def halt(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        """Stop the server (fast shutdown, then immediate when `deadline` seconds have passed) and wait for its end."""

    @abstractmethod
    def connect(self, data_directory: PurePosixPath, database: str, **options: Any) -> Connection:
        """A superuser's autocommit connection to the server that runs on this data directory.

        Raises `Unavailable` where none runs or it does not accept connections.
        """
