"""Somebody who writes into every server all the time, and notes each commit that was answered."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import psycopg

from tde_replication.errors import UserError
from tests.engine.cluster import Cluster

PAUSE, REFUSED = 0.002, 0.01
"""Seconds between two commits, and between two tries at a server that takes no writes."""


@dataclass(frozen=True)
class Commit:
    number: int
    server: str
    began: float
    answered: float


@dataclass
class Writer:
    cluster: Cluster
    commits: list[Commit] = field(default_factory=list)

    def rows(self, name: str) -> set[int]:
        return {number for (number,) in self.cluster.sql(name, "SELECT number FROM public.written")}

    def lost(self, name: str) -> set[int]:
        """Commits that were answered, and that server does not have."""
        return {commit.number for commit in self.commits} - self.rows(name)

    def longest_gap(self) -> float:
        """Seconds between two commits that were answered."""
        times = sorted(commit.answered for commit in self.commits)
        return max((later - former for former, later in pairwise(times)), default=0.0)

    def torn(self) -> list[Commit]:
        """Commits that a server answered though they were begun when another one, which took writes after it, had answered: two
        took writes at once. (Of one switchover; who becomes the primary again within it would be among them.)"""
        first: dict[str, float] = {}
        for commit in sorted(self.commits, key=lambda commit: commit.answered):
            first.setdefault(commit.server, commit.answered)
        return [
            commit
            for commit in self.commits
            if any(
                first[commit.server] < begun <= commit.began for name, begun in first.items() if name != commit.server
            )
        ]


@contextmanager
def writing(cluster: Cluster, servers: list[str]) -> Iterator[Writer]:
    """Into all of them at once, each by a thread of its own."""
    writer, stop, numbers = Writer(cluster), threading.Event(), itertools.count(1)

    def write(name: str) -> None:
        while not stop.is_set():
            _burst(cluster, name, numbers, writer.commits, stop)
            stop.wait(cluster.pause)

    threads = [threading.Thread(target=write, args=(name,)) for name in servers]
    for thread in threads:
        thread.start()
    try:
        yield writer
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)


def _burst(cluster: Cluster, name: str, numbers: Iterator[int], commits: list[Commit], stop: threading.Event) -> None:
    """Write by one connection, until it ends. What was answered with a warning (that nobody waited for the standby, for the
    statement took too long) was not promised."""
    warnings: list[str] = []
    try:
        with cluster.client(name) as session:
            session.add_notice_handler(lambda said: warnings.append(said.message_primary or ""))
            while not stop.wait(PAUSE):
                number, began = next(numbers), time.monotonic()
                warnings.clear()
                try:
                    session.execute("INSERT INTO public.written VALUES (%s)", [number])
                except psycopg.errors.ReadOnlySqlTransaction:
                    stop.wait(REFUSED)
                    continue
                if not warnings:
                    commits.append(Commit(number, name, began, time.monotonic()))
    except (psycopg.Error, UserError):
        pass
