"""Ends whatever a test run has started, however the run ends: also by a kill, after which no fixture is finished.

The process that pytest was started as becomes a guard, and the run goes on in a child of it. Servers that detach themselves
become the guard's children (they would become those of init), so that none is ever out of its sight. There are two guards, one
the parent of the other: whichever of the three processes is killed, one that ends the rest is left.
"""

import ctypes
import os
import signal
import time
from contextlib import suppress

import psutil

from benchmarks.processes import adopt_orphans

MARK = "TDE_TESTS_GUARD"
"""In the environment of what already has a guard: the workers of pytest-xdist."""
PR_SET_PDEATHSIG = 1
PASSED_ON = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
WATCHED = {*PASSED_ON, signal.SIGCHLD}
PATIENCE = 15.0
"""Seconds in which what is left may end in order: a dockerd its containers, for it unmounts their disks."""


def stand_guard() -> None:
    """Return in the child. A run that is not the first process keeps to the guards that it has."""
    if MARK in os.environ:
        return
    os.environ[MARK] = str(os.getpid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    for _ in range(2):
        adopt_orphans()
        guard = os.getpid()
        run = os.fork()
        if run:
            os._exit(_end_with(run))
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != guard:
            signal.raise_signal(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(run: int) -> int:
    """Wait for the end of the run, then end all others; the exit status of the run."""
    status = None
    while status is None:
        told = signal.sigwaitinfo(WATCHED)
        if told.si_signo == signal.SIGCHLD:
            status = _reap(run)
        elif told.si_code <= 0:  # sent to the guard alone; from a terminal, the run has it too
            with suppress(ProcessLookupError):
                os.kill(run, told.si_signo)
    _end_all(signal.SIGTERM)
    _end_all(signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _reap(run: int) -> int | None:
    """Wait for children that have ended; the status of the run, when it has."""
    ended = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == run:
                ended = found[1]
    return ended


def _end_all(number: signal.Signals) -> None:
    """Signal every descendant once, those too that appear meanwhile, until none is left or patience is at an end."""
    told: set[psutil.Process] = set()
    deadline = time.monotonic() + PATIENCE
    while (left := set(psutil.Process().children(recursive=True))) and time.monotonic() < deadline:
        for process in left - told:
            with suppress(psutil.Error):
                process.send_signal(number)
        told |= left
        time.sleep(0.02)
        _reap(0)
