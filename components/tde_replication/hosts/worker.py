"""A shell of the servers' account that lives as long as this process: to start one for each of the many small questions of a
preview would take several times as long."""

import atexit
import os
import secrets
import selectors
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from typing import IO, cast

from tde_replication.hosts.files import Ended
from tde_replication.waiting import Limit

STDOUT, STDERR = 1, 2
CHUNK = 65_536
OUTPUT_LIMIT = 64 * 2**20
"""Bytes that any answer may have."""
END_SECONDS = 5.0

# Reads a count of lines and a marker, then so many lines; runs them, and writes the marker behind their output. The marker is
# another one each time, and no file can hold it: files are written by the account, which may not answer in our place.
SERVE = """
while read -r count marker; do
    text=
    while [ "$count" -gt 0 ]; do
        IFS= read -r line || exit
        text="$text$line
"
        count=$((count - 1))
    done
    ( eval "$text" ) </dev/null
    printf '%s %s\\n' "$marker" "$?"
    printf '%s\\n' "$marker" >&2
done
"""


def run_to_its_end(command: Sequence[str], environment: Mapping[str, str], content: bytes, deadline: float) -> Ended:
    """A command with `content` as standard input. Its whole group ends with a missed deadline, which raises `TimeoutError`."""
    with (
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            start_new_session=True,
        ) as child,
        Limit(deadline, lambda: os.killpg(child.pid, signal.SIGKILL)) as limit,
    ):
        output, errors = child.communicate(content)
    limit.expect_not_interrupted("work on files")
    if limit.passed:
        raise TimeoutError
    return Ended(child.returncode, output, errors.decode(errors="replace"))


class Worker(ABC):
    """One such shell (`SERVE`), for one question at a time."""

    @property
    @abstractmethod
    def alive(self) -> bool: ...

    @abstractmethod
    def _send(self, data: bytes) -> None:
        """Write to its standard input. Raises `EOFError` where it has ended."""

    @abstractmethod
    def _pieces(self, deadline: float) -> Generator[tuple[int, bytes]]:
        """Its output as it comes, each piece with its stream (`STDOUT`, `STDERR`), for as long as somebody asks for more.

        Raises `TimeoutError` after `deadline` seconds, or `EOFError` where it has ended.
        """

    @abstractmethod
    def end(self) -> None:
        """End it with whatever it runs."""

    def ask(self, text: str, deadline: float) -> Ended:
        """Run shell commands. Raises `TimeoutError`, or `EOFError` where the shell has ended; it is of no use then."""
        marker = f"--{secrets.token_hex(16)}--".encode()
        self._send(b"%d %s\n%s\n" % (text.count("\n") + 1, marker, text.encode(errors="surrogateescape")))
        output, errors = self._collect(marker, deadline)
        before, _, status = output.rpartition(marker)
        return Ended(int(status), before, errors.rpartition(marker)[0].decode(errors="replace"))

    def _collect(self, marker: bytes, deadline: float) -> list[bytes]:
        found = {STDOUT: bytearray(), STDERR: bytearray()}
        awaited = set(found)
        with closing(self._pieces(deadline)) as pieces:
            for stream, data in pieces:
                collected = found[stream]
                collected += data
                if collected.endswith(b"\n") and marker in collected[-len(marker) - 8 :]:
                    awaited.discard(stream)
                if not awaited:
                    break
                if sum(map(len, found.values())) > OUTPUT_LIMIT:
                    raise TimeoutError
        return [bytes(one) for one in found.values()]


class LocalWorker(Worker):
    """On this machine, behind a command that makes it the account's."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [*command, "/bin/sh", "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            start_new_session=True,  # Ctrl-C is for whoever asks
        )
        self._stdin, self._stdout, self._stderr = (
            cast("IO[bytes]", stream) for stream in (self._process.stdin, self._process.stdout, self._process.stderr)
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _send(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            self._stdin.flush()
        except BrokenPipeError:
            raise EOFError from None

    def _pieces(self, deadline: float) -> Generator[tuple[int, bytes]]:
        end = time.monotonic() + deadline
        with selectors.DefaultSelector() as ready:
            ready.register(self._stdout, selectors.EVENT_READ, STDOUT)
            ready.register(self._stderr, selectors.EVENT_READ, STDERR)
            while True:
                events = ready.select(end - time.monotonic())
                if not events:
                    raise TimeoutError
                for key, _ in events:
                    data = os.read(key.fd, CHUNK)
                    if not data:
                        raise EOFError
                    yield key.data, data

    def end(self) -> None:
        with suppress(BrokenPipeError):
            self._stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_SECONDS)
        for stream in (self._stdout, self._stderr):
            stream.close()


class Workers:
    """As many as are asked at once."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[tuple[str, Worker]]] = defaultdict(list)
        """By where they are, each with the run of that place that it was started in."""
        self._lock = threading.Lock()
        atexit.register(self.end)

    def ask(self, place: str, run: str, start: Callable[[], Worker], text: str, deadline: float) -> Ended:
        """Run shell commands at `place`; `start` starts a shell there. Those of another `run` of it have ended with that.

        Raises `TimeoutError` or `EOFError`.
        """
        worker = self._take(place, run) or start()
        try:
            ended = worker.ask(text, deadline)
        except BaseException:  # what it answers later would be taken for the answer to another question
            worker.end()
            raise
        with self._lock:
            self._idle[place].append((run, worker))
        return ended

    def _take(self, place: str, run: str) -> Worker | None:
        former: list[Worker] = []
        try:
            with self._lock:
                idle = self._idle[place]
                while idle:
                    its_run, worker = idle.pop()
                    if its_run == run and worker.alive:
                        return worker
                    former.append(worker)
            return None
        finally:
            for worker in former:
                worker.end()

    def forget(self, place: str) -> None:
        """That place is gone."""
        with self._lock:
            idle = self._idle.pop(place, [])
        for _, worker in idle:
            worker.end()

    def end(self) -> None:
        for place in list(self._idle):
            self.forget(place)


WORKERS = Workers()
