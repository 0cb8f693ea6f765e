"""What is read on a server's disk: on the contract double, which encrypts nothing, and on files that look encrypted."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tde_replication.postgres.extension import Extension
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.relations import of_database
from tde_replication.postgres.session import server_session
from tde_replication.status.model import Database, Instance, OnDisk
from tde_replication.status.observation import _instance
from tde_replication.status.on_disk import on_disk
from tests.providers.servers import Node, Servers


@pytest.fixture(scope="module")
def node(root: Path, programs_with_pg_tde: Path) -> Iterator[Node]:
    """With keys in a file: what is tried here asks no Vault."""
    servers = Servers(root, programs_with_pg_tde)
    made = servers.primary("crypt", shared_preload_libraries="pg_tde")
    Extension.model_validate({**made.inside, "database": "postgres"}).create()
    made.rows("SELECT pg_tde_add_global_key_provider_file('file', 'keyring')")
    for call in ("create_key", "set_default_key"):
        made.rows(f"SELECT pg_tde_{call}_using_global_key_provider('orders', 'file')")
    made.rows("CREATE TABLE closed USING tde_heap AS SELECT generate_series(1, 9999) AS a")
    made.rows("CREATE TABLE empty (a int) USING tde_heap")
    yield made
    servers.end()


def asked(node: Node) -> tuple[Database, Instance]:
    with server_session(node.host, node.data, "test", "postgres") as server:
        database = Database.model_validate_json(server.value(of_database(PgTde(server), [])))
        return database, _instance(server).model_copy(update={"wal_encrypted": True})


def read(node: Node) -> OnDisk:
    database, instance = asked(node)
    return on_disk(node.host, node.data, database.samples, instance)


def test_files_that_are_in_clear_are_found_and_others_are_not(node: Node) -> None:
    node.rows("CHECKPOINT")
    [sample] = asked(node)[0].samples
    assert (sample.name, sample.block) == ("public.closed", 8192)
    assert read(node) == OnDisk(pages=3, tables=1, in_clear=("public.closed",), wal="in clear")
    file = node.file(sample.path)
    assert file.stat().st_size == sample.bytes > 10 * sample.block
    # The server has these pages in memory.
    with file.open("r+b") as pages:
        pages.write(os.urandom(sample.bytes))
    assert read(node) == OnDisk(pages=3, tables=1, in_clear=(), wal="in clear")
    with file.open("r+b") as pages:
        pages.seek(sample.bytes // sample.block // 2 * sample.block)
        pages.write(bytes(sample.block))
    assert read(node) == OnDisk(pages=2, tables=1, in_clear=(), wal="in clear")
    file.rename(f"{file}.away")
    assert read(node) == OnDisk(wal="in clear")
    Path(f"{file}.away").rename(file)


@pytest.mark.parametrize("written", [0, 1, 16 * 2**20])
def test_the_newest_page_of_wal_is_found_wherever_it_is(node: Node, written: int) -> None:
    node.rows("SELECT pg_switch_wal()")
    node.rows("SELECT pg_logical_emit_message(true, '', repeat('x', %s))", [written])
    assert read(node).wal == "in clear"
    database, instance = asked(node)
    for unknown in ({"lsn_bytes": None}, {"timeline": 7}, {"wal_block_bytes": None}):
        found = on_disk(node.host, node.data, database.samples, instance.model_copy(update=unknown))
        assert found.wal == "not known"
    assert on_disk(node.host, node.data, (), instance.model_copy(update={"wal_encrypted": False})) == OnDisk()
