"""Whether a server runs with programs or libraries that were replaced on disk since it started, as new packages do it.

Linux tells of each file that a process has mapped whether it is still the one of that name (proc_pid_maps(5), "(deleted)").
"""

import re
from pathlib import PurePosixPath

from tde_replication.errors import CommandFailed
from tde_replication.hosts.base import Host
from tde_replication.postgres.session import Session

DELETED = r"s|^[^/]* \(/.*\) (deleted)$|\1|p"
VERSION = re.compile(r"\d+(\.\d+)*")


def replaced(machine: Host, binaries: PurePosixPath, data: PurePosixPath, server: Session) -> str:
    """What was replaced, in words; empty: nothing was. `server`: a session on the server that runs on `data`.

    Raises `Unavailable` where the machine cannot be asked.
    """
    running = machine.postmaster(data)
    if running is None:
        return ""
    tree = machine.real(binaries).parent
    try:
        mapped = machine.output(["sed", "-n", DELETED, f"/proc/{running.pid}/maps"]).splitlines()
        files = sorted({PurePosixPath(path).name for path in mapped if tree in PurePosixPath(path).parents})
        if not files:
            return ""
        said = machine.output([str(binaries / "postgres"), "--version"])
    except CommandFailed:
        return ""  # it has ended meanwhile, or its programs are half installed: nothing is restarted for that
    [[runs]] = server.known("SELECT current_setting('server_version')")
    installed, had = (VERSION.search(text) for text in (said, str(runs)))
    if installed and had and installed[0] != had[0]:
        return f"PostgreSQL {installed[0]} is installed, and it runs {had[0]}"
    return f"{', '.join(files)} was replaced on disk since it started"
