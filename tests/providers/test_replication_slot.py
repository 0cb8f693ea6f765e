"""A standby's slot on the primary."""

from collections.abc import Iterator

import pytest

from tde_replication.errors import Conflict, UserError
from tde_replication.postgres.replication_slot import ReplicationSlot
from tests.providers.servers import Node, Servers


def slot(primary: Node, name: str = "tested") -> ReplicationSlot:
    return ReplicationSlot.model_validate({**primary.inside, "slot": name})


@pytest.fixture
def declared(primary: Node) -> Iterator[ReplicationSlot]:
    made = slot(primary)
    yield made
    primary.rows("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'tested'")


@pytest.mark.parametrize("name", ["tested", "x" * 63, "0_1"])
def test_from_nothing_to_nothing(primary: Node, name: str) -> None:
    declared = slot(primary, name)
    assert declared.read() is None
    made = declared.create()
    assert made.read() == made
    query = "SELECT slot_type, restart_lsn IS NOT NULL, temporary FROM pg_replication_slots WHERE slot_name = %s"
    assert primary.rows(query, [name]) == [("physical", True, False)]
    before = primary.value("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = %s", [name])
    assert declared.create() == made
    assert primary.value("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = %s", [name]) == before
    made.delete()
    assert declared.read() is None
    made.delete()


def test_a_name_that_postgresql_refuses(primary: Node) -> None:
    with pytest.raises(UserError, match=r"^replication slot mid-INT: .*invalid character.* \(SQLSTATE 42602\)") as told:
        slot(primary, "mid-INT").create()
    assert "\n" not in str(told.value)


def test_a_dropped_slot_is_gone(primary: Node, declared: ReplicationSlot) -> None:
    declared.create()
    primary.rows("SELECT pg_drop_replication_slot('tested')")
    assert declared.read() is None


def test_a_slot_that_reserves_nothing_is_lost_and_made_anew(primary: Node, declared: ReplicationSlot) -> None:
    primary.rows("SELECT pg_create_physical_replication_slot('tested')")
    live = declared.read()
    assert live is not None
    assert declared.changed(live) == {"wal_status"}
    declared.create()
    assert drift(declared) == set()


def drift(declared: ReplicationSlot) -> set[str]:
    live = declared.read()
    assert live is not None
    return declared.changed(live)


def test_a_slot_without_wal_to_hold_is_no_drift_under_load(primary: Node, declared: ReplicationSlot) -> None:
    declared.create()
    for _ in range(3):
        primary.rows("SELECT pg_logical_emit_message(false, 'load', repeat('x', 100000)); ")
        primary.rows("SELECT pg_switch_wal()")
        primary.rows("CHECKPOINT")
        assert drift(declared) == set()


def test_a_full_house_says_so(primary: Node, declared: ReplicationSlot) -> None:
    room = int(primary.value("SHOW max_replication_slots")) - int(
        primary.value("SELECT count(*) FROM pg_replication_slots")
    )
    names = [f"filler_{number}" for number in range(room)]
    for name in names:
        primary.rows("SELECT pg_create_physical_replication_slot(%s)", [name])
    try:
        with pytest.raises(
            UserError, match=r"all replication slots are in use \(SQLSTATE 53400\)\. .*max_replication_slots"
        ):
            declared.create()
    finally:
        for name in names:
            primary.rows("SELECT pg_drop_replication_slot(%s)", [name])
    declared.create()


def test_a_lost_slot_is_shown_and_made_anew_and_a_logical_one_refused(servers: Servers) -> None:
    small = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    primary = servers.primary("lossy", wal_level="logical", **small)
    declared = slot(primary)
    declared.create()
    for _ in range(3):
        primary.rows("SELECT pg_logical_emit_message(false, 'load', repeat('x', 1000000))")
        primary.rows("SELECT pg_switch_wal()")
    primary.rows("CHECKPOINT")
    live = declared.read()
    assert live is not None
    assert live.wal_status == "lost"
    assert declared.changed(live) == {"wal_status"} <= ReplicationSlot.replaced_by
    live.delete()
    declared.create()
    assert drift(declared) == set()
    declared.delete()

    primary.rows("SELECT pg_create_logical_replication_slot('tested', 'pgoutput')")
    live = declared.read()
    assert live is not None
    assert live.slot_type == "logical"
    assert "logical" in (declared.refusal(live) or "")
    with pytest.raises(
        Conflict, match=r"a logical slot of this name is there already: .* or give the standby another name"
    ):
        declared.create()
    live.delete()
    declared.delete()  # also where the state still says that it is ours
    assert primary.rows("SELECT slot_type FROM pg_replication_slots") == [("logical",)]
    primary.stop()
