"""In a file of its own: `pytest -n 2 --dist loadfile` runs it beside the other one, with another cluster."""

from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from tde_replication.testing.temporary import EncryptedCluster


def test_the_standby_follows_by_its_slot(encrypted_cluster: "EncryptedCluster") -> None:
    with psycopg.connect(encrypted_cluster.primary_dsn) as session:
        assert session.execute("SELECT slot_name, active FROM pg_replication_slots").fetchall() == [("tde_db2", True)]
