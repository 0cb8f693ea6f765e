"""(n) in containers: the pytest fixture against testcontainers with the steps of a script."""

import json
import time
from pathlib import Path

from benchmarks.by_steps import PRIMARY, STANDBY, STREAMING
from benchmarks.fixture import Run
from benchmarks.machines import Machines
from benchmarks.others import install
from benchmarks.place import BenchmarkError, cost
from benchmarks.stack import Stack
from benchmarks.table import Row, Table
from tests.docker.lab import BINARIES

SCRIPT = Path(__file__).with_name("testcontainers_run.py")
MADE = 'mkdir -p "$2"\n'
ROOM = "/tmp/steps"  # noqa: S108 - in a container of its own


def measure(root: Path, machines: Machines, table: Table) -> None:
    """With the image and the steps of (h)."""
    ready = table.row(Row("n", "in containers: pytest started to its first test", "s", against="testcontainers"))
    whole = table.row(Row("n", "the whole run of pytest", "s", against="testcontainers"))
    try:
        tools = install(root)
    except BenchmarkError as error:
        table.remark(f"(n) DID NOT RUN against testcontainers: {error}")
        return
    server = {"host": {"docker": machines.image}, "binaries": str(BINARIES)}
    stack = Stack(root)
    stack.vault()
    plain = [str(tools.bin / "python"), str(SCRIPT), machines.image, str(root / "plain"), str(root / "steps.json")]
    own = [str(BINARIES), ROOM]
    steps = [[0, f"{MADE}{PRIMARY}", *own], [1, f"{MADE}{STANDBY}", *own, "server0"], [0, STREAMING, own[0]]]
    (root / "steps.json").write_text(json.dumps(steps))
    for number in table.pairs("n (containers)"):
        run = Run(stack, number, primary="db1", servers={"db1": server, "db2": server})
        began = time.monotonic()
        whole.ours.append(cost(run).seconds)
        ready.ours.append(run.ready - began)
        began = time.monotonic()
        whole.plain.append(cost(lambda: stack.run(*plain, TESTCONTAINERS_RYUK_DISABLED="true")).seconds)
        ready.plain.append(float((root / "plain").read_text()) - began)
