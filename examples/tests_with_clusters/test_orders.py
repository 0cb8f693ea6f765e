"""An application writes to a primary and reads from its standby: is an order there, and is it encrypted?"""

import time
from collections.abc import Iterator

import psycopg
import pytest

from tde_replication.testing.temporary import EncryptedCluster

Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def primary(encrypted_cluster: EncryptedCluster) -> Iterator[Session]:
    with psycopg.connect(encrypted_cluster.primary_dsn, autocommit=True) as session:
        yield session
        session.execute("DROP TABLE IF EXISTS orders")


def test_an_order_is_read_from_the_standby(primary: Session, encrypted_cluster: EncryptedCluster) -> None:
    primary.execute("CREATE TABLE orders (item text)")
    primary.execute("INSERT INTO orders VALUES ('coffee')")
    [written] = primary.execute("SELECT pg_current_wal_lsn()").fetchone() or ()
    with psycopg.connect(encrypted_cluster.standby_dsns[0], autocommit=True) as standby:
        while standby.execute("SELECT pg_last_wal_replay_lsn() < %s::pg_lsn", [written]).fetchone() == (True,):
            time.sleep(0.01)
        assert standby.execute("SELECT item FROM orders").fetchall() == [("coffee",)]


def test_orders_are_encrypted(primary: Session, encrypted_cluster: EncryptedCluster) -> None:
    assert encrypted_cluster.encryption["inForce"]
    primary.execute("CREATE TABLE orders (item text) USING tde_heap")
    assert primary.execute("SELECT pg_tde_is_encrypted('orders')").fetchone() == (True,)
