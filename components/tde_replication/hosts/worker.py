"""A shell of the servers' account on this machine that lives as long as this process: to start one for each of the many small
questions of a preview would take several times as long."""

import atexit
import os
import secrets
import selectors
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, cast

from tde_replication.hosts.files import Ended
from tde_replication.waiting import Limit

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


class Worker:
    """One such shell, for one question at a time."""

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
        self._streams = [cast("IO[bytes]", stream) for stream in (self._process.stdout, self._process.stderr)]
        self._stdin = cast("IO[bytes]", self._process.stdin)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, text: str, deadline: float) -> Ended:
        """Run shell commands. Raises `TimeoutError`, or `EOFError` where the shell has ended; it is of no use then."""
        marker = f"--{secrets.token_hex(16)}--"
        try:
            self._stdin.write(f"{text.count(chr(10)) + 1} {marker}\n{text}\n".encode(errors="surrogateescape"))
            self._stdin.flush()
        except BrokenPipeError:
            raise EOFError from None
        output, errors = self._collect(marker.encode(), time.monotonic() + deadline)
        before, _, status = output.rpartition(marker.encode())
        return Ended(int(status), before, errors.rpartition(marker.encode())[0].decode(errors="replace"))

    def _collect(self, marker: bytes, end: float) -> list[bytes]:
        found = [bytearray(), bytearray()]
        with selectors.DefaultSelector() as ready:
            for index, stream in enumerate(self._streams):
                ready.register(stream, selectors.EVENT_READ, index)
            while ready.get_map():
                events = ready.select(end - time.monotonic())
                if not events or sum(map(len, found)) > OUTPUT_LIMIT:
                    raise TimeoutError
                for key, _ in events:
                    data = os.read(key.fd, CHUNK)
                    if not data:
                        raise EOFError
                    collected = found[key.data]
                    collected += data
                    if collected.endswith(b"\n") and marker in collected[-len(marker) - 8 :]:
                        ready.unregister(key.fileobj)
        return [bytes(one) for one in found]

    def end(self) -> None:
        """End it with whatever it runs."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_SECONDS)
        for stream in self._streams:
            stream.close()


class Workers:
    """As many as are asked at once."""

    def __init__(self) -> None:
        self._idle: defaultdict[tuple[str, ...], list[Worker]] = defaultdict(list)
        self._lock = threading.Lock()
        atexit.register(self.end)

    def ask(self, command: Sequence[str], environment: Mapping[str, str], text: str, deadline: float) -> Ended:
        """Run shell commands behind `command`. Raises `TimeoutError` or `EOFError`."""
        kind = tuple(command)
        worker = self._take(kind) or Worker(command, environment)
        try:
            ended = worker.ask(text, deadline)
        except BaseException:  # what it answers later would be taken for the answer to another question
            worker.end()
            raise
        with self._lock:
            self._idle[kind].append(worker)
        return ended

    def _take(self, kind: tuple[str, ...]) -> Worker | None:
        with self._lock:
            while self._idle[kind]:
                worker = self._idle[kind].pop()
                if worker.alive:
                    return worker
                worker.end()
        return None

    def end(self) -> None:
        with self._lock:
            for workers in self._idle.values():
                while workers:
                    workers.pop().end()


WORKERS = Workers()
