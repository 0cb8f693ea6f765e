"""(n): a test cluster by the pytest fixture, and ten at once, against a script of the same steps."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec

from benchmarks.by_hand import ByHand
from benchmarks.place import cost
from benchmarks.sides import Sides
from benchmarks.stack import Stack
from benchmarks.table import Row, Table, at_most
from bootstrap.project import HERE

READY = 6.0
"""Seconds, from the start of pytest to the first line of a test; the fixture uses a Vault that runs."""
MANY = 10
PYTEST = ("-m", "pytest", "-q", "-p", "tde_replication.testing.plugin", "-p", "no:cacheprovider")
TEST = """
import pathlib, time

def test_with_a_cluster(encrypted_cluster):
    pathlib.Path("ready").write_text(str(time.monotonic()))
"""


def measure(sides: Sides, table: Table) -> None:
    if not find_spec("pytest"):
        table.remark("(n) DID NOT RUN: there is no pytest; `make bench` has it")
        return
    ready = table.row(
        Row("n", "pytest started to its first test", "s", at_most(READY, lambda row: row.ours, f"{READY:g}"))
    )
    whole_way = table.row(Row("n", "a Vault started, and then the same", "s"))
    whole = table.row(Row("n", "the whole run of pytest", "s"))
    many = table.row(Row("n", f"the same, {MANY} at once", "s"))
    for _ in table.pairs("n"):
        with sides.ours() as ours:
            vault = cost(ours.vault).seconds
            began, run = time.monotonic(), Run(ours)
            whole.ours.append(vault + cost(run).seconds)
            ready.ours.append(run.ready - began)
            whole_way.ours.append(vault + ready.ours[-1])
            many.ours.append(cost(lambda ours=ours: _at_once([Run(ours, n) for n in range(MANY)])).seconds)  # type: ignore[misc]
        with sides.script() as script:
            up = cost(script.up).seconds
            whole_way.plain.append(up)
            whole.plain.append(up + cost(script.down).seconds)
        with ExitStack() as scripts:
            several = [_up_and_down(scripts.enter_context(sides.script(f"script{n}"))) for n in range(MANY)]
            many.plain.append(cost(lambda several=several: _at_once(several)).seconds)  # type: ignore[misc]


class Run:
    """One run of pytest, in a directory of its own."""

    def __init__(self, ours: Stack, number: int | None = None, **settings: object) -> None:
        self._ours = ours
        self._directory = ours.root / ("test" if number is None else f"test{number}")
        self._directory.mkdir()
        (self._directory / "test_it.py").write_text(TEST)
        cluster = json.dumps({"encryption": "off", **settings})
        (self._directory / "pytest.ini").write_text(f"[pytest]\ntde_cluster = {cluster}\n")

    @property
    def ready(self) -> float:
        """When the first line of the test was run."""
        return float((self._directory / "ready").read_text())

    def __call__(self) -> None:
        self._ours.run(str(HERE.python), *PYTEST, cwd=self._directory, TMPDIR=str(self._ours.root))


def _up_and_down(script: ByHand) -> Callable[[], None]:
    def both() -> None:
        script.up()
        script.down()

    return both


def _at_once(steps: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(steps)) as pool:
        for done in [pool.submit(step) for step in steps]:
            done.result()
