"""A directory and ports of this run's own, on this machine's scratch space."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes


class BenchmarkError(Exception):
    """One sentence for the person at the terminal."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that the servers' account can enter; it goes in the end, and every process started meanwhile first."""
    processes.adopt_orphans()
    root = Path(tempfile.mkdtemp(prefix="tde-bench-"))
    root.chmod(0o755)
    try:
        yield root
    finally:
        processes.end_all()
        shutil.rmtree(root)


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu: float
    """User and system seconds, of every process that had a part in it."""


def cost(step: Callable[[], object]) -> Cost:
    processes.reap()
    cpu, began = processes.cpu_seconds(), time.monotonic()
    step()
    seconds = time.monotonic() - began
    return Cost(seconds, processes.cpu_seconds() - cpu)


def run(command: Sequence[str | Path], *, cwd: Path, environ: Mapping[str, str]) -> str:
    """Run a command to its end and return its standard output. Raises `BenchmarkError` with the last that it said."""
    done = subprocess.run(command, cwd=cwd, env=dict(environ), capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-60:])
        raise BenchmarkError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said}")
    return done.stdout
