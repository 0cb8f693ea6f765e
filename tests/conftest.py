"""What all levels of tests share."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from bootstrap import ports

# Before the first of them is imported: the asserts of helpers show their values, as those of tests do.
pytest.register_assert_rewrite(*(f"tests.{one.stem}" for one in Path(__file__).parent.iterdir() if one.stem[0] != "_"))

# Fixtures: what they start and make takes a minute, and is made once.
from tests.docker.lab import contained_bao, daemon, image  # noqa: E402, F401
from tests.guard import stand_guard  # noqa: E402
from tests.ssh.booted import laboratory  # noqa: E402, F401

# Deadlines would make timed tests of them, on a machine that is shared.
settings.register_profile("here", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("here")


def pytest_configure() -> None:
    """Have a guard, which ends what a run leaves; and let one that is told to end clean up as one that is interrupted.

    Each worker picks ports from a range of its own: two would pick the same one now and then.
    """
    stand_guard()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A run that was started in the background ignores it, and so would all that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = len(ports.RANGE) // 4
    ports.RANGE = ports.RANGE[worker % 4 * share :][:share]


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, for tests wait for servers about as long as they compute; not more than have ports."""
    return min(4, (os.cpu_count() or 1) + 1)


MACHINES = {"docker", "hosts", "kinds", "ssh"}
"""Folders whose tests boot machines: one worker takes them all, for their images take a minute to make."""
LONG = {*MACHINES, "engine"}


class WholeFiles(LoadScopeScheduling):  # type: ignore[misc]
    """Side by side (`pytest -n`), a worker takes whole files."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(nodeid.partition("::")[0])
        return "machines" if file.parent.name in MACHINES else str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles:
    return WholeFiles(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker begins with one when the other has done."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True)
def _whole_tracebacks() -> Iterator[None]:
    """The adapter shortens tracebacks for people; tests want to see theirs."""
    yield
    sys.__dict__.pop("tracebacklimit", None)
