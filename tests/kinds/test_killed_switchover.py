"""The table of killed switchovers of tests/engine, in containers and by ssh.

Not between kinds: a container beside machines reached by ssh cannot be their primary, and two of those are the rows by ssh.
"""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.engine.interruption import processes
from tests.engine.switchover import BETWEEN_CONTAINERS, STEPS, VICTIMS, figures, killed, nothing_lost, waits, whole
from tests.engine.workspace import eventually
from tests.kinds.places import Everywhere, declared
from tests.ssh.booted import Booted, Lab

# Docker's SDK leaves a socket open that could not be connected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket.*family=1:ResourceWarning")


@pytest.fixture(scope="session")
def three_machines(laboratory: Lab) -> list[Booted]:
    return laboratory.boot("killed1", "killed2", "killed3")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everywhere]:
    with declared(request.param, request, tmp_path_factory.mktemp("killed")) as made:
        made.workspace.up_well()
        made.sql("db1", "CREATE TABLE public.written (number int PRIMARY KEY) USING tde_heap")
        yield made


def ended(cluster: Everywhere) -> None:
    """What worked for the stack has, but for shared connections, which end a minute after their last use."""
    for process in processes(cluster):
        if process.is_pulumis:
            os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: all(process.command.startswith("ssh") for process in processes(cluster)), seconds=60)


ADDRESS = ("docker", "address", "the command", False)
"""A container was told the address of the primary, and is not promoted yet."""
SAMPLE = {ADDRESS, ("docker", "stop", "the former primary", False)}
"""Rows for every run: machines that boot take minutes."""
ROWS = [
    (kind, step, victim, synchronous)
    for kind in ("docker", "ssh")
    for synchronous in (False, True)
    for step in STEPS
    if kind == "docker" or step != BETWEEN_CONTAINERS
    for victim in VICTIMS
    if not synchronous or (step in {"stop", "promotion"} and victim != "Vault")
    if kind == "docker" or victim != "Vault"  # which is made again, and would not be on the network of the machines
]


@pytest.mark.parametrize(
    ("cluster", "step", "victim", "synchronous"),
    [
        pytest.param(
            *row,
            id=f"{row[0]}: {row[2]} at {row[1]}, {'synchronous' if row[3] else 'asynchronous'}",
            marks=() if row in SAMPLE else pytest.mark.soak,
        )
        for row in ROWS
    ],
    indirect=["cluster"],
)
def test_killed_at_any_step_it_goes_on_and_loses_nothing(
    cluster: Everywhere,
    step: str,
    victim: str,
    synchronous: bool,  # noqa: FBT001
    record_property: Callable[[str, object], None],
) -> None:
    waits(cluster, synchronous=synchronous)
    switch, writer = killed(cluster, step, VICTIMS[victim], ended)
    for name, value in figures(writer, switch.new).items():
        record_property(name, value)
    nothing_lost(writer, switch.new)
    whole(cluster, switch.new)
