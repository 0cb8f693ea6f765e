"""Whether a process lives, asked without a race: it may end between two questions."""

import psutil


def lives(process: psutil.Process) -> bool:
    """Not once it has ended, whether its parent has waited for it or not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_lives(pid: int) -> bool:
    try:
        return lives(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False
