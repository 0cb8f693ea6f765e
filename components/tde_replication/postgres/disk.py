"""Room on the disk of a server."""

from pathlib import PurePosixPath

from tde_replication.errors import UserError
from tde_replication.hosts.base import Host

DEADLINE = 30.0


def free_bytes(host: Host, path: PurePosixPath) -> int | None:
    """Bytes that the account may write where `path` lies, or will lie; None where that cannot be told. (coreutils, *df
    invocation*.)"""
    try:
        place = next(one for one in (path, *path.parents) if host.status(one))
        return int(host.run(["df", "--output=avail", "--block-size=1", str(place)], deadline=DEADLINE).split()[-1])
    except (UserError, StopIteration, ValueError, IndexError):
        return None
