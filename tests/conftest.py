"""What all levels of tests share."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.ssh.booted import laboratory  # noqa: F401 - a fixture: its image takes a minute, and is made once

# Deadlines would make timed tests of them, on a machine that is shared.
settings.register_profile("here", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("here")


MACHINES = {"docker", "hosts", "ssh"}
"""Folders whose tests boot machines: one worker takes them all, for their images take a minute to make."""
LONG = {*MACHINES, "engine"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side (`pytest -n`), a worker takes whole files, the longest first."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group("machines" if folder in MACHINES else f"{folder}/{item.path.name}"))
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True)
def _whole_tracebacks() -> Iterator[None]:
    """The adapter shortens tracebacks for people; tests want to see theirs."""
    yield
    sys.__dict__.pop("tracebacklimit", None)
