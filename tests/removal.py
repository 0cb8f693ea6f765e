"""Directories that go away under a server that runs on."""

import shutil
import time
from pathlib import Path


def removed_under_its_server(data: Path, seconds: float = 10) -> None:
    """The server goes on to write, so that a directory that was empty may not be so any more."""
    deadline = time.monotonic() + seconds
    while data.exists():
        assert time.monotonic() < deadline, f"{data} is there still"
        shutil.rmtree(data, ignore_errors=True)
