"""What Pulumi was just making when it was killed: nothing of it is left in the state of a stack that was taken away."""

import json
import os
import signal
from typing import Any

import pytest

from bootstrap import by_hand
from bootstrap.project import Project
from bootstrap.stack import Stack
from tests.engine.cluster import Cluster
from tests.engine.interruption import interrupted, kill_engine, strays_gone
from tests.engine.test_teardown import declare
from tests.engine.workspace import Workspace, eventually


def pending(workspace: Workspace) -> list[Any]:
    return list(json.loads(workspace.run("stack", "export").text)["deployment"].get("pending_operations") or [])


def kill_when_noted(cluster: Cluster, engine: int) -> None:
    """Once the state says what is being made: it is looked at while the engine stands still, and cannot go on to the next."""
    stacks = cluster.workspace.directory / "state" / ".pulumi" / "stacks"

    def stopped_while_noted() -> bool:
        os.kill(engine, signal.SIGSTOP)
        if any('"creating"' in path.read_text() for path in stacks.rglob("*.json")):
            return True
        os.kill(engine, signal.SIGCONT)
        return False

    eventually(stopped_while_noted)
    kill_engine(cluster, engine)


@pytest.mark.parametrize("by", ["make", "pulumi"])
def test_destroy_leaves_an_empty_state(not_there_yet: Cluster, by: str) -> None:
    """`make destroy`, and `pulumi destroy` in a shell of env.sh."""
    cluster, workspace = not_there_yet, not_there_yet.workspace
    declare(cluster, 1, encryption="off")
    _, step = interrupted(cluster, ["up"], kill_when_noted, lambda name: name == "DataDirectory db1 creating")
    assert step
    strays_gone(cluster)
    workspace.unlock()
    assert pending(workspace)
    environment = {**workspace.environment, "PULUMI_SKIP_CONFIRMATIONS": "true"}
    project = Project(workspace.directory)
    if by == "make":
        assert Stack(project, workspace.stack, environment, embedded_vault=False).destroy() == 0
    else:
        assert workspace.destroy().code == 0
        assert pending(workspace), "Pulumi itself keeps it"
        words = ["--stack", workspace.stack, "destroy"]
        assert by_hand.tidy(project, workspace.directory, words, environment) == 0
    assert pending(workspace) == []
    assert not json.loads(workspace.run("stack", "export").text)["deployment"].get("resources")
    assert list((cluster.base / "db1").glob("*")) == []
