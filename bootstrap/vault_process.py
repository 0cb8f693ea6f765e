"""The process of an embedded Vault: found by the directory that it serves."""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

ARGUMENTS = ("server", "-config=server.json")


def server_in(directory: Path) -> int | None:
    """Find the server that runs in `directory`, as a pidfd.

    The kernel is asked, not a file with a pid in it: that can be stale, and a process could go unrecorded.
    """
    for process in Path("/proc").glob("[0-9]*"):
        if _serves(process, directory):
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(int(process.name))
                if _serves(process, directory):  # still: a pid can be given to another
                    return descriptor
                os.close(descriptor)
    return None


def _serves(process: Path, directory: Path) -> bool:
    try:
        _, *arguments, _ = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return (
            tuple(arguments) == ARGUMENTS
            and (process / "cwd").readlink() == directory.resolve()
            and (process / "exe").readlink().name.split()[0] == "bao"
        )
    except (OSError, ValueError):  # it has ended, or is somebody else's
        return False


def end(server: int, how: signal.Signals = signal.SIGTERM, patience: float = 10) -> None:
    """Signal a pidfd's process and wait for its end; what does not end is killed."""
    try:
        poll = select.poll()
        poll.register(server, select.POLLIN)
        for attempt in (how, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(server, attempt)
            if poll.poll(patience * 1000):
                break
        with suppress(ChildProcessError):  # where this process had started it
            os.waitid(os.P_PIDFD, server, os.WEXITED)
    finally:
        os.close(server)
