"""What all levels of tests share."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.ssh.booted import laboratory  # noqa: F401 - a fixture: its image takes a minute, and is made once

# Deadlines would make timed tests of them, on a machine that is shared.
settings.register_profile("here", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("here")


@pytest.fixture(autouse=True)
def _whole_tracebacks() -> Iterator[None]:
    """The adapter shortens tracebacks for people; tests want to see theirs."""
    yield
    sys.__dict__.pop("tracebacklimit", None)
