"""Whether a process lives, asked without a race: it may end between two questions; and what processes show of themselves."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def watched(program: str, meanwhile: Callable[[], object] = lambda: None) -> Iterator[set[str]]:
    """The arguments of all processes of this machine during the block, and the environment of `program`; `meanwhile` is called
    as often as that is seen."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for process in psutil.process_iter():
                try:
                    seen.add("\0".join(process.cmdline()))
                    if process.name().startswith(program):
                        seen.add(str(process.environ()))
                        meanwhile()
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
