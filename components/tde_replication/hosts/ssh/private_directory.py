"""A directory that nobody else can write, for what ssh needs while it runs."""

import os
import stat
import tempfile
from pathlib import Path

from tde_replication.errors import UserError


def control() -> Path:
    """The directory of the control sockets: this user's own, mode 0700, with a short name (a socket's path has 107 bytes)."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parent = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    directory = parent / f"tde-ssh-{os.geteuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise UserError(f"{directory} is not owned by this user alone: whoever made it could take over connections")
    return directory
