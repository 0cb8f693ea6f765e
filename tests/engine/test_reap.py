"""A test cluster that expires: seen in outputs, unchanged while nobody touches it, and nothing of it left in the end."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tde_replication import reap
from tests.engine.cluster import Cluster, base_directory, discard
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao


@pytest.fixture
def expiring(openbao: OpenBao, tmp_path: Path) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path, "short-lived", openbao.environment)
    made = Cluster(workspace, base, 0, openbao, encryption="off", expires="8h")
    workspace.init()
    yield made
    discard(made)


def test_a_cluster_expires_and_is_reaped(
    expiring: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, bao = expiring.workspace, expiring.bao.client()
    accessors = set(bao.list("auth/token/accessors")["data"]["keys"])
    workspace.up_well()
    ends = datetime.fromisoformat(workspace.output("expires"))
    assert timedelta(hours=7, minutes=55) < ends - datetime.now(UTC) < timedelta(hours=8)
    workspace.unchanged()

    for name, value in workspace.environment.items():
        monkeypatch.setenv(name, value)
    project = workspace.directory

    def reaped(hours: float) -> list[str]:
        code = reap.reap(project, lambda stack: reap.remove(project, stack), now=ends + timedelta(hours=hours))
        assert code == 0
        return capsys.readouterr().out.split(None, 2)

    assert reaped(-0.1)[:2] == ["short-lived", "left:"]
    workspace.write({**workspace.cluster, "expires": "12h"})
    assert reaped(0.1)[:2] == ["short-lived", "left:"]
    workspace.up_well()
    assert datetime.fromisoformat(workspace.output("expires")) == ends + timedelta(hours=4)
    workspace.write({**workspace.cluster, "disposable": False})
    assert "does not say that it is disposable" in reaped(5)[2]
    assert expiring.running("db1")

    workspace.write({**workspace.cluster, "disposable": True})
    told = reaped(5)
    assert told[:2] == ["short-lived", "destroyed:"]
    assert told[2].endswith(
        f"; with it 1 server (db1), 1 data directory ({expiring.data('db1')}), 1 Vault mount (tde-{workspace.stack})\n"
    )
    assert not expiring.running("db1")
    assert list(expiring.data("db1").parent.iterdir()) == []
    assert f"tde-{workspace.stack}/" not in bao.sys.list_mounted_secrets_engines()["data"]
    assert not [name for name in bao.sys.list_policies()["data"]["policies"] if workspace.stack in name]
    assert set(bao.list("auth/token/accessors")["data"]["keys"]) <= accessors
    assert json.loads(workspace.run("stack", "ls", "--json").text or "[]") == []
    assert (project / "stacks" / f"Pulumi.{workspace.stack}.yaml").exists()
