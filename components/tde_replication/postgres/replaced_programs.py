"""Whether a server runs with programs or libraries that were replaced on disk since it started, as new packages do it.

Linux tells of each file that a process has mapped whether it is still the one of that name (proc_pid_maps(5), "(deleted)").
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tde_replication.errors import CommandFailed
from tde_replication.hosts.base import Host
from tde_replication.postgres.session import Session

DELETED = re.compile(r"^[^/]* (/.*) \(deleted\)$", re.MULTILINE)
VERSION = re.compile(r"\d+(\.\d+)*")


def replaced(machine: Host, binaries: PurePosixPath, data: PurePosixPath, server: Session) -> str:
    """What was replaced, in words; empty: nothing was. `server`: a session on the server that runs on `data`.

    Raises `Unavailable` or `AccessDenied` where the machine cannot be asked.
    """
    running = machine.postmaster(data)
    if running is None:
        return ""
    maps = machine.read(PurePosixPath(f"/proc/{running.pid}/maps")) or b""  # none: it has ended meanwhile
    files = sorted(set(deleted(maps.decode(errors="replace"), machine.real(binaries).parent)))
    if not files:
        return ""
    [[runs]] = server.known("SELECT current_setting('server_version')")
    try:
        said = machine.output([str(binaries / "postgres"), "--version"])
    except CommandFailed:
        said = ""  # half installed: whoever restarts it tries the program first
    installed, had = (VERSION.search(text) for text in (said, str(runs)))
    if installed and had and installed[0] != had[0]:
        return f"PostgreSQL {installed[0]} is installed, and it runs {had[0]}"
    return f"{', '.join(files)} was replaced on disk since it started"


def deleted(maps: str, tree: PurePosixPath) -> Iterator[str]:
    """The names of files below `tree` that a process has mapped and that are not there any more."""
    for path in map(PurePosixPath, DELETED.findall(maps)):
        if tree in path.parents:
            yield path.name
