"""What a machine answers, kept up to a limit: one that was taken over may send without end."""

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

from tde_replication.errors import UserError

LARGEST = 32 << 20
"""Bytes: more than the largest file that is read (`files.LIMIT`), which is the largest answer to anything that is asked."""
LINES = 2000
"""Of standard error; the last ones, for the reason stands there."""
LONGEST = 64 << 10
"""Bytes of one line."""


class Kept:
    """Bytes of one answer of `whose`."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._content = bytearray()

    def add(self, data: bytes) -> None:
        """Raises `UserError` where that is too much."""
        if len(self._content) + len(data) > LARGEST:
            self._content.clear()
            raise UserError(f"{self._whose} answered with more than {LARGEST >> 20} MiB: nothing of it was used")
        self._content += data

    def __bytes__(self) -> bytes:
        return bytes(self._content)


class Receiver(threading.Thread):
    """Keeps what `whose` writes into a pipe; where that is too much, `enough` ends who writes."""

    def __init__(self, whose: str, pipe: IO[bytes], enough: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._kept, self._pipe, self._enough = Kept(whose), pipe, enough
        self._refused: UserError | None = None

    def run(self) -> None:
        try:
            while data := os.read(self._pipe.fileno(), LONGEST):
                self._kept.add(data)
        except UserError as problem:
            self._refused = problem
            self._enough()

    def content(self) -> bytes:
        """All of it, once the pipe is closed at the other end."""
        if self._refused:
            raise self._refused
        return bytes(self._kept)


def last_lines() -> deque[str]:
    """Where lines of standard error are kept."""
    return deque(maxlen=LINES)


class Lines:
    """Bytes as they come, as lines."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._rest = b""
        self.lines = last_lines()

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest[-LONGEST:] + data).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            self._tell(line, "\n")

    def end(self) -> None:
        if self._rest:
            self._tell(self._rest, "")

    def _tell(self, line: bytes, end: str) -> None:
        text = line.decode(errors="replace")
        self.lines.append(text + end)
        if self._on_line:
            self._on_line(text)
