"""The processes that a measurement starts, servers included: what they cost, and their end."""

import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

PR_SET_CHILD_SUBREAPER = 36
SAMPLE_SECONDS = 0.02
MIB = 1024**2


def adopt_orphans() -> None:
    """Have servers that detach themselves become children of this process, so that none is ever out of sight."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def end_all() -> None:
    """Kill what is left of all that this process ever started, and nothing else; wait for its end."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)  # psutil sees to it that the pid is still the same process
        reap()
        time.sleep(SAMPLE_SECONDS)


def reap() -> None:
    """Wait for adopted processes that have ended. Only between measurements: nobody else's child is taken then."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def cpu_seconds() -> float:
    """What all processes started so far have used, user and system, whether they still run or not."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass
class Peak:
    """The most memory that the tree held at one time, in MiB: proportional set size, which counts a shared page once."""

    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    """What of it each program held."""
    samples: int = 0


@contextmanager
def watched(*, every: float = SAMPLE_SECONDS, only_new: bool = False) -> Iterator[Peak]:
    """Sample the memory of all descendants meanwhile, or only of those that were not there before."""
    peak, done = Peak(), threading.Event()
    before = set(psutil.Process().children(recursive=True)) if only_new else set()

    def watch() -> None:
        while not done.is_set():
            began = time.monotonic()
            _sample(peak, before)
            done.wait(max(0.0, every - (time.monotonic() - began)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _sample(peak: Peak, without: Collection[psutil.Process]) -> None:
    parts: dict[str, float] = {}
    for process in set(psutil.Process().children(recursive=True)).difference(without):
        with suppress(psutil.Error):
            name = process.name()
            parts[name] = parts.get(name, 0.0) + process.memory_full_info().pss / MIB
    peak.samples += 1
    if sum(parts.values()) > peak.total:
        peak.total, peak.parts = sum(parts.values()), parts
