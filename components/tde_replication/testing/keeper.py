"""Destroys a test cluster when the process that made it has ended without doing so: by a kill, or as a worker of pytest-xdist.

It waits in a session of its own for the end of its input. Whoever has destroyed the cluster says so first; the dead say nothing.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

DONE = b"done"


@contextmanager
def kept(place: Path, lock: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Have a keeper for the cluster in `place`, which holds the directory's `lock` too: so nobody sweeps it meanwhile."""
    keeper = subprocess.Popen(
        [sys.executable, "-m", __name__, str(place), str(lock)],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[lock],
        start_new_session=True,
    )
    try:
        yield
    finally:
        if place.exists():
            assert keeper.stdin  # noqa: S101 - for the type checker: it is a pipe
            keeper.stdin.close()
            keeper.returncode = 0  # it outlives this object
        else:
            keeper.communicate(DONE)


def main(place: Path, lock: int) -> None:
    if sys.stdin.buffer.read() == DONE:
        return
    from tde_replication.testing import directories, stack  # noqa: PLC0415 - most keepers need neither

    try:
        stack.destroy(place)
    finally:
        directories.forget(place, lock)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
