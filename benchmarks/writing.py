"""Who uses a cluster while another server of it becomes the primary: one who writes, and pgbench beside."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.place import BenchmarkError, run
from tde_replication.waiting import until

PAUSE = 0.002
PATIENCE = 60.0
SCALE = 10
"""Of pgbench: a database of 150 MiB."""
CLIENTS = 4
AGAIN = 'while :; do "$@"; sleep 0.02; done'
"""Its clients end with the server that they write to."""


def prepare(primary: str) -> None:
    with psycopg.connect(primary, autocommit=True) as session:
        session.execute("CREATE TABLE written (at timestamptz)")


class Writer:
    """Tries each server every few milliseconds, all of them at once: one that does not answer holds up nobody."""

    def __init__(self, dsns: Sequence[str]) -> None:
        self._answered: list[float] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=[dsn]) for dsn in dsns]

    def _write(self, dsn: str) -> None:
        while not self._stop.is_set():
            with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True, connect_timeout=2) as session:
                while not self._stop.is_set():
                    with suppress(psycopg.errors.ReadOnlySqlTransaction):
                        session.execute("INSERT INTO written VALUES (now())")
                        self._answered.append(time.monotonic())
                    self._stop.wait(PAUSE)
            self._stop.wait(PAUSE)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._wait(time.monotonic())
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _wait(self, since: float) -> None:
        if not until(lambda: bool(self._answered) and self._answered[-1] > since, seconds=PATIENCE):
            raise BenchmarkError(f"no server has taken a write for {PATIENCE:g} s")

    def longest_gap(self) -> float:
        """Seconds between two commits that were answered, until now."""
        self._wait(time.monotonic())
        return max(later - earlier for earlier, later in pairwise(sorted(self._answered)))


@contextmanager
def pgbench(binaries: Path, dsns: Mapping[str, str], primary: str, root: Path) -> Iterator[None]:
    """Its own transactions by four clients, against whichever server takes writes."""
    program = str(binaries / "pgbench")
    run([program, "--initialize", "--quiet", "--scale", str(SCALE), dsns[primary]], cwd=root, environ={})
    load = [program, "--no-vacuum", "--client", str(CLIENTS), "--time", "3600", _whoever_writes(list(dsns.values()))]
    command = ["sh", "-c", AGAIN, "sh", *load]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as again:
        try:
            yield
        finally:
            os.killpg(again.pid, signal.SIGTERM)


def _whoever_writes(dsns: Sequence[str]) -> str:
    every = [conninfo_to_dict(dsn) for dsn in dsns]
    hosts, ports = (",".join(str(one[name]) for one in every) for name in ("host", "port"))
    return make_conninfo(dsns[0], host=hosts, port=ports, target_session_attrs="read-write", connect_timeout=2)
