"""What a refresh and a plan ask of each server: once, whatever the number of its resources."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.cluster import Cluster, base_directory
from tests.engine.counting import counted, is_little
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("facts"), "facts", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    workspace.init()
    workspace.up_well()
    yield made
    done = workspace.destroy()
    assert done.code == 0, done.text
    shutil.rmtree(base)
    workspace.close()


def test_a_refresh_asks_each_server_little(cluster: Cluster) -> None:
    asked = counted(cluster, lambda: cluster.workspace.run("refresh", "--preview-only", "--expect-no-changes"))
    assert len({process for process, _, _ in asked}) == 1
    assert {(kind, server) for _, kind, server in asked} == {
        (kind, name) for kind in ("command", "connection") for name in cluster.names
    }
    is_little(asked)


def test_so_does_a_plan(cluster: Cluster) -> None:
    asked = counted(cluster, lambda: cluster.workspace.preview("--expect-no-changes"))
    assert len({process for process, _, _ in asked}) == 2  # the provider and the program
    is_little(asked)
