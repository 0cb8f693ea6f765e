"""Somebody who writes into whichever server takes it, all the time, and notes every commit that was answered."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import psycopg

from tests.engine.cluster import Cluster

SECONDS = 2


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
        return {number for (number,) in self.cluster.sql(name, "SELECT number FROM written")}

    def lost(self, name: str) -> set[int]:
        """Commits that were answered, and that server does not have."""
        return {commit.number for commit in self.commits} - self.rows(name)

    def longest_gap(self) -> float:
        """Seconds between two commits that were answered."""
        times = [commit.answered for commit in self.commits]
        return max((later - former for former, later in pairwise(times)), default=0.0)

    def torn(self) -> list[tuple[Commit, Commit]]:
        """Where one server answered a commit that was begun before another one's answer: two took writes at once."""
        turns = [(a, b) for a, b in pairwise(self.commits) if a.server != b.server]
        return [(first, again) for first, again in pairwise(b for _, b in turns) if again.began < first.answered]


@contextmanager
def writing(cluster: Cluster, servers: list[str]) -> Iterator[Writer]:
    """It tries one server after the other."""
    writer, stop = Writer(cluster), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            for name in servers:
                number += _burst(cluster, name, number, writer.commits, stop)
            stop.wait(0.005)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield writer
    finally:
        stop.set()
        thread.join(timeout=30)
        assert not thread.is_alive()


def _burst(cluster: Cluster, name: str, first: int, commits: list[Commit], stop: threading.Event) -> int:
    """Write into one server for as long as it takes it; how many numbers were used."""
    used = 0
    try:
        with psycopg.connect(
            host=str(cluster.sockets(name)),
            port=cluster.ports[name],
            user="postgres",
            dbname="postgres",
            autocommit=True,
            connect_timeout=SECONDS,
            options=f"-c statement_timeout={SECONDS}s",
        ) as session:
            while not stop.is_set():
                used += 1
                began = time.monotonic()
                session.execute("INSERT INTO written VALUES (%s)", [first + used])
                commits.append(Commit(first + used, name, began, time.monotonic()))
                stop.wait(0.002)
    except psycopg.Error:
        pass
    return used
