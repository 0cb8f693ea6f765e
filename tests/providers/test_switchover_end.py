"""What is taken away after a switchover, on servers that do not run."""

from pathlib import Path

import pytest

from tde_replication.postgres.switchover_end import drop_slots
from tde_replication.postgres.topology_server import TopologyServer
from tests.providers.servers import Servers


def test_the_slots_of_a_stopped_server_go_and_it_starts_without_them(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also below the project's own directory, where empty directories go with the last thing in them."""
    node = servers.primary("former")
    node.rows("SELECT pg_create_physical_replication_slot('tde_db2')")
    node.stop()
    monkeypatch.setattr("tde_replication.hosts.local.machine.local_root", lambda _: Path(node.data).parents[1])
    former = TopologyServer(
        name="former",
        host="local",
        data_directory=str(node.data),
        binaries=node.server.binaries,
        slot="tde_former",
    )
    drop_slots(former, ["tde_db2", "tde_former"])
    node.server.update(node.server.replace(running=False))
    assert node.rows("SELECT slot_name FROM pg_replication_slots") == []
    node.stop()
