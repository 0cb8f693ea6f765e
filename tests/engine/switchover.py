"""Switchovers that are killed: at which step, and what; while somebody writes into all servers all the time."""

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.engine.cluster import Cluster
from tests.engine.interruption import kill_provider, strays_gone
from tests.engine.workspace import Output, eventually
from tests.engine.writer import Writer, writing

STEPS = {
    "before": r"gets its pg_hba rules and slots",
    "address": r"streams from the address of",
    "checkpoint": r"writes a checkpoint",
    "stop": r"db\d stops",
    "promotion": r"is promoted",
    "after": r"is the primary: no writes",
}
"""By what its row says."""
BETWEEN_CONTAINERS = "address"
"""The step that there is nowhere else."""
SYNCHRONOUS: dict[str, Any] = {"standbys": ["db1", "db2"], "whenTooFew": "wait"}
ENOUGH = 20
"""Commits before it begins."""


@dataclass
class Switch:
    """From the server that is the primary to the other one of db1 and db2."""

    cluster: Cluster
    old: str = field(init=False)
    new: str = field(init=False)

    def __post_init__(self) -> None:
        self.old = primary(self.cluster)
        self.new = "db2" if self.old == "db1" else "db1"

    def declare(self) -> None:
        declare(self.cluster, self.new)


def _command(switch: Switch, engine: int) -> None:
    del switch
    os.kill(engine, signal.SIGKILL)


def _provider(switch: Switch, engine: int) -> None:
    kill_provider(switch.cluster, engine)


def _old(switch: Switch, engine: int) -> None:
    del engine
    _kill(switch.cluster, switch.old)


def _new(switch: Switch, engine: int) -> None:
    del engine
    _kill(switch.cluster, switch.new)


def _vault(switch: Switch, engine: int) -> None:
    del engine
    switch.cluster.bao.kill()


def _kill(cluster: Cluster, name: str) -> None:
    if cluster.running(name):
        cluster.kill(name)


Victim = Callable[[Switch, int], object]
VICTIMS: dict[str, Victim] = {
    "the command": _command,
    "the provider": _provider,
    "the former primary": _old,
    "the next primary": _new,
    "Vault": _vault,
}


def primary(cluster: Cluster) -> str:
    """The one that takes writes."""
    [name] = [name for name in cluster.names if cluster.running(name) and not in_recovery(cluster, name)]
    return name


def in_recovery(cluster: Cluster, name: str) -> bool:
    return bool(cluster.sql(name, "SELECT pg_is_in_recovery()")[0][0])


def declare(cluster: Cluster, name: str) -> None:
    """Name another primary."""
    cluster.workspace.write({**cluster.workspace.cluster, "primary": name})


def waits(cluster: Cluster, *, synchronous: bool) -> None:
    """Have commits wait for the other one of db1 and db2, or for nobody."""
    declared = {**cluster.workspace.cluster, "synchronous": SYNCHRONOUS if synchronous else None}
    wanted = {key: value for key, value in declared.items() if value is not None}
    if wanted != cluster.workspace.cluster:
        cluster.workspace.write(wanted)
        cluster.workspace.up_well()


def interrupted(cluster: Cluster, pattern: str, act: Callable[[int], object]) -> tuple[Output, bool]:
    """Run `up`, and `act` with its process when its row says what `pattern` finds; its output, and whether that came."""
    with cluster.workspace.start("up", "--yes", "--skip-preview") as process:
        assert process.stdout
        lines, done = [], False
        for line in process.stdout:
            lines.append(line)
            if not done and "Topology" in line and re.search(pattern, line):
                done = True
                act(process.pid)
        process.wait(timeout=300)
    return Output(process.returncode, "".join(lines)), done


def killed(
    cluster: Cluster, step: str, victim: Victim, ended: Callable[[Any], object] = strays_gone
) -> tuple[Switch, Writer]:
    """A switchover in which `victim` is killed at `step`, under load, and the next `up`. `ended`: what worked for it has."""
    workspace, switch = cluster.workspace, Switch(cluster)
    cluster.sql(switch.old, "TRUNCATE public.written")
    switch.declare()
    with writing(cluster, cluster.names) as writer:
        eventually(lambda: len(writer.commits) > ENOUGH, seconds=60)
        output, done = interrupted(cluster, STEPS[step], lambda engine: victim(switch, engine))
        assert done, output.text
        assert "Traceback" not in output.text, output.text
        ended(cluster)
        cluster.bao.start()
        workspace.unlock()
        for name in (switch.old, switch.new):  # as a supervisor would
            if not cluster.running(name):
                cluster.start(name)
        again = workspace.up()
        assert again.code == 0, again.errors
        count = len(writer.commits)
        eventually(lambda: len(writer.commits) > count + ENOUGH, seconds=60)
    return switch, writer


def nothing_lost(writer: Writer, name: str) -> None:
    """Every commit that was answered is on `name`, and on all others soon; and no two servers took writes at once."""
    cluster = writer.cluster
    assert writer.commits
    assert writer.lost(name) == set()
    assert writer.torn() == []
    for other in cluster.names:
        if other != name:
            eventually(lambda other=other: writer.lost(other) == set(), seconds=60)  # type: ignore[misc]


def whole(cluster: Cluster, name: str) -> None:
    """`name` is the primary, and the others stream from it by slots that are nowhere else."""
    assert primary(cluster) == name
    others = [other for other in cluster.names if other != name]
    query = "SELECT slot_name FROM pg_replication_slots WHERE active ORDER BY 1"
    eventually(lambda: cluster.sql(name, query) == [(f"tde_{other}",) for other in others], seconds=60)
    for other in others:
        assert cluster.sql(other, "SELECT slot_name FROM pg_replication_slots") == []
    cluster.workspace.unchanged()


def figures(writer: Writer, primary: str) -> dict[str, int]:
    """For the report of a run (`pytest --junitxml`)."""
    return {"commits": len(writer.commits), "lost": len(writer.lost(primary)), "two_primaries": len(writer.torn())}
