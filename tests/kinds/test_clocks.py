"""A cluster whose machines do not agree on the time: the primary an hour ahead, a standby an hour behind."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.change import edited
from tests.engine.workspace import eventually
from tests.kinds.places import Everywhere, declared
from tests.ssh.booted import Booted, Lab

OFF = {"db1": "+1h", "db2": "-1h", "db3": "+0h"}
HOUR = 3600
SLOTS = ["tde_db2", "tde_db3"]
# Containers have the kernel's clock: libfaketime gives all processes that are started from now on another.
SET_CLOCK = """
echo "$1" >/etc/faketimerc
ls /usr/lib/*/faketime/libfaketime.so.1 >/etc/ld.so.preload
systemctl restart systemd-journald ssh
"""


@pytest.fixture(scope="session")
def three_machines(laboratory: Lab) -> list[Booted]:
    booted = laboratory.boot("early", "late", "right")
    for machine, off in zip(booted, OFF.values(), strict=True):
        machine.root(SET_CLOCK, off)
    return booted


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Everywhere]:
    with declared("ssh", request, tmp_path) as made:
        yield made


def off(cluster: Everywhere, name: str) -> tuple[int, int]:
    """By how many hours a machine is off: as its shell sees it, and as its server does."""
    [[server]] = cluster.sql(name, "SELECT extract(epoch FROM clock_timestamp())::float8")
    shell = float(cluster.host(name).run(["date", "+%s"], deadline=20))
    return round((shell - time.time()) / HOUR), round((server - time.time()) / HOUR)


@pytest.mark.soak
def test_clocks_that_are_off_by_an_hour(cluster: Everywhere) -> None:
    workspace = cluster.workspace
    workspace.up_well()
    assert [off(cluster, name) for name in cluster.names] == [(1, 1), (-1, -1), (0, 0)]
    workspace.unchanged()
    eventually(lambda: cluster.streaming() == SLOTS)
    # Another password, and tokens that are renewed.
    whole = workspace.cluster
    workspace.write(edited(whole, lambda c: c.update(replication={"passwordVersion": 2})))
    workspace.up_well()
    cluster.sql("db1", "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
    eventually(lambda: cluster.streaming() == SLOTS)
    workspace.unchanged()
    # A new key, which every server must open.
    workspace.write(edited(workspace.cluster, lambda c: c.update(key={"name": "another"})))
    workspace.up_well()
    workspace.unchanged()
    # What a start that fails has written is found, by the machine's own clock.
    for name in ("db1", "db2"):
        cluster.stop(name)
        host, path = cluster.host(name), cluster.place(name) / "postgresql.conf"
        before = host.read(path) or b""
        host.write(path, before + b"hba_file = '/no/such/file'\n", mode=0o600)
        failed = workspace.up()
        assert failed.code != 0
        told = f"server {name} did not start: could not load /no/such/file"
        assert any(told in line for line in failed.errors), failed.errors
        host.write(path, before, mode=0o600)
        workspace.up_well()
        eventually(lambda: cluster.streaming() == SLOTS)
    workspace.unchanged()
    # A standby that comes again is cloned again.
    workspace.write(edited(workspace.cluster, lambda c: c["servers"].pop("db2")))
    workspace.up_well()
    workspace.write(edited(whole, lambda c: c.update(workspace.cluster | {"servers": whole["servers"]})))
    workspace.up_well()
    eventually(lambda: cluster.streaming() == SLOTS)
    workspace.unchanged()
