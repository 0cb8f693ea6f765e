"""The table of drift on servers in containers: what it does by SQL, to their files and in Vault."""

import secrets
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import pytest

from components.hosts.base import Host
from components.hosts.docker import DockerHost
from tests.docker.conftest import OwnVault
from tests.docker.test_host import DATA
from tests.engine.cluster import Cluster
from tests.engine.drift import ROWS, Row
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao

# Docker's SDK leaves a socket open that could not be connected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket.*family=1:ResourceWarning")
BATCHES = [
    list(rows) for _, rows in groupby((row for row in ROWS if not row.here), key=lambda row: row.batch or str(row))
]


class Contained(OpenBao):
    def __init__(self, vault: OwnVault) -> None:
        self.vault = vault


class Containers(Cluster):
    """Servers db1 (the primary), db2 and db3 in containers."""

    clients = "samenet"

    def __init__(self, workspace: Workspace, image: str, binaries: str, vault: OwnVault) -> None:
        self.workspace = workspace
        self.bao = Contained(vault)
        self.names = ["db1", "db2", "db3"]
        servers = [{"name": name, "host": {"docker": image}, "binaries": binaries} for name in self.names]
        seen = {"network": OwnVault.name, "addressFromServers": f"https://{OwnVault.name}:8200"}
        workspace.write({"disposable": True, "vault": seen, "primary": servers[0], "standbys": servers[1:]})

    def host(self, name: str) -> Host:
        return DockerHost(f"docker://tde-{self.workspace.stack}-{name}")

    def place(self, name: str) -> PurePosixPath:
        del name
        return DATA

    def sql(self, name: str, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with self.host(name).connect(DATA, database) as connection:
            for statement in query.split("; "):
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def cluster(
    image: str, binaries: str, vault: OwnVault, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containers]:
    environment = {"VAULT_ADDR": vault.address, "VAULT_CACERT": str(vault.ca), "VAULT_TOKEN": vault.token}
    workspace = Workspace(tmp_path_factory.mktemp("drift"), f"drift{secrets.token_hex(3)}", environment)
    made = Containers(workspace, image, binaries, vault)
    workspace.init()
    workspace.up_well()
    yield made
    done = workspace.destroy()
    assert done.code == 0, done.text


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """The cluster stays from row to row; `vault` looks after what is left in the end."""


def _often(rows: list[Row]) -> Any:
    """Two batches in every run; all of them for `make soak`."""
    return pytest.param(rows, marks=() if rows[0].batch in {"1", "8"} else pytest.mark.soak)


@pytest.mark.parametrize("rows", [_often(rows) for rows in BATCHES], ids=lambda rows: " + ".join(map(str, rows)))
def test_drift_is_shown_and_repaired(cluster: Containers, rows: list[Row]) -> None:
    for row in rows:
        row.act(cluster)
        row.check(cluster)
    preview = cluster.workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan == {resource: step for row in rows for resource, step in row.planned(cluster).items()}
    assert [words for row in rows for words in row.unsaid(cluster, preview.words)] == [], preview.changes
    cluster.workspace.up_well()
    cluster.workspace.unchanged()
    eventually(lambda: cluster.streaming() == ["tde_db2", "tde_db3"])
