"""Who listens on a port of a machine, as its kernel says (proc(5), *net/tcp*)."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePosixPath

from tde_replication.errors import CommandFailed
from tde_replication.hosts.addresses import ANY, addresses
from tde_replication.hosts.base import Host

DEADLINE = 20.0
LISTENING = "0A"
SOCKETS = ("/bin/sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || :")
# Of another account's process, only the account is known.
HOLDER = """
id -nu "$2" 2>/dev/null || echo "$2"
for process in $(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\\[$1\\]" 2>/dev/null | cut -d/ -f3 | sort -n | head -n 1); do
  echo "$process"
  cat "/proc/$process/comm"
  readlink "/proc/$process/cwd"
done
:
"""


@dataclass(frozen=True)
class Listener:
    address: str
    port: int
    uid: str
    inode: str


@dataclass(frozen=True)
class Holder:
    """Who has a port. Of another account's process, only the account is known."""

    account: str
    pid: str = ""
    program: str = ""
    directory: str = ""
    """Its working directory, which is a PostgreSQL server's data directory."""

    def __str__(self) -> str:
        if not self.pid:
            return f"a process of the account {self.account}"
        where = f", data directory {self.directory}" if self.program == "postgres" else ""
        return f"{self.program} (process {self.pid} of {self.account}{where})"


def listener(host: Host, listen: Sequence[str], port: int) -> Listener | None:
    """What a server with these listen_addresses would find in its place."""
    wanted = set[str]()
    for name in listen:
        with suppress(OSError):  # a name that only the machine itself knows
            wanted.update([name] if name in ANY else addresses(name))
    for found in _listeners(host.run(SOCKETS, deadline=DEADLINE)):
        if found.port == port and (found.address in wanted | ANY or wanted & ANY):
            return found
    return None


def holder(host: Host, found: Listener) -> Holder:
    try:
        text = host.run(["/bin/sh", "-c", HOLDER, "sh", found.inode, found.uid], deadline=DEADLINE)
    except CommandFailed:
        return Holder(found.uid)
    account, *process = text.splitlines() or [found.uid]
    return Holder(account, *process[:3]) if len(process) >= 3 else Holder(account)  # noqa: PLR2004 - pid, program, directory


def same_directory(found: Holder, data: PurePosixPath) -> bool:
    """Whether it works in `data`, also where that was removed under it."""
    return found.directory.removesuffix(" (deleted)") == str(data)


def _listeners(text: str) -> Iterator[Listener]:
    for line in text.splitlines():
        words = line.split()
        with suppress(ValueError, IndexError):
            address, _, port = words[1].partition(":")
            if words[3] == LISTENING:
                yield Listener(_address(address), int(port, 16), words[7], words[9])


def _address(text: str) -> str:
    """Groups of four bytes, each in the machine's own order (which is the little-endian one wherever this runs)."""
    raw = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    return str(ip_address(socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)))  # noqa: PLR2004
