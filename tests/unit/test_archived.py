"""Whether an archive has what a standby lacks."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import PurePosixPath
from typing import Any
from unittest.mock import Mock

import pytest

from tde_replication.errors import CommandFailed, Unavailable
from tde_replication.postgres.archived import MOST_DIRECTORIES, Archived
from tde_replication.postgres.control import ControlData
from tde_replication.postgres.following import WAL_GONE, Clone
from tde_replication.postgres.replication_slot import SLOTS

SIZE = 2**24
PER = 2**32 // SIZE
INFO = (
    '[{"archive":[{"database":{"id":1,"repo-key":1},"id":"17-1"},{"database":{"id":2,"repo-key":1},"id":"18-2"}],"backup":[],'
    '"db":[{"id":1,"repo-key":1,"system-id":1,"version":"17"},{"id":2,"repo-key":1,"system-id":2,"version":"18"}],"name":"orders",'
    '"repo":[{"cipher":"none","key":1,"status":{"code":2,"message":""}}],"status":{"code":2,"message":"no valid backups"}}]'
)


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number // PER:08X}{number % PER:08X}"


def archived(*files: str, said: str = INFO) -> Archived:
    """An archive with these WAL files."""

    def output(command: list[str]) -> str:
        if "info" in command:
            return said
        *_, repository, path = command
        assert repository == "--repo=1"
        above, found = "archive/orders/18-2", {one[:16] for one in files}
        if path == above:
            return "\n".join(sorted(found))
        inside = [f"{one}-{'a' * 40}.gz" for one in files if path == f"{above}/{one[:16]}"]
        return "\n".join([*inside, f"{files[0]}.00000028.backup"])

    return Archived(Mock(output=output), "orders", SIZE)


ALL = {1: 2**40}


def test_every_file_counts_of_any_timeline_that_the_primary_has_come_by() -> None:
    files = [name(number) for number in range(250, 260)]
    assert archived(*files).has(250, 260, ALL)
    assert archived(*files).has(255, 257, ALL)
    assert not archived(*files).has(249, 260, ALL)
    assert not archived(*files).has(250, 261, ALL)
    assert not archived(*(one for one in files if one != name(256))).has(250, 260, ALL)
    # A timeline that another server went by, and what was written on one beyond its end.
    assert not archived(*files).has(250, 260, {2: 2**40})
    assert not archived(*files).has(250, 260, {1: 258, 2: 2**40})
    assert archived(*files, name(259, 2)).has(250, 260, {1: 258, 2: 2**40})


def test_more_than_a_clone_would_take_is_not_looked_for() -> None:
    machine = Mock()
    assert not Archived(machine, "orders", SIZE).has(0, (MOST_DIRECTORIES + 1) * PER, ALL)
    assert machine.output.call_count == 0


def test_a_repository_that_does_not_answer_is_no_archive_without_it() -> None:
    failing = Mock(output=Mock(side_effect=CommandFailed("pgbackrest", 99, "no route")))
    with pytest.raises(Unavailable):
        Archived(failing, "orders", SIZE).has(1, 2, ALL)
    with pytest.raises(Unavailable, match="no route"):
        archived(name(1), said=INFO.replace('"code":2,"message":""', '"code":99,"message":"no route"')).has(1, 2, ALL)


CONTROL = ControlData("2", "shut down in recovery", 1, name(3), SIZE, "0/3000028")


def clone(archive: Archived | None, slots: Mapping[str, str], oldest: int, files: list[str]) -> Clone:
    """A standby that is down with these WAL files, of a primary whose oldest one is `oldest`."""

    def known(query: str) -> list[tuple[Any, ...]]:
        return (
            [(slot, "physical", "lost", why) for slot, why in slots.items()]
            if query == SLOTS
            else [(name(oldest)[8:],)]
        )

    primary = Mock(
        known=known, row=Mock(return_value=("00000001", "0/9000000")), value=Mock(side_effect=["00000001", None] * 2)
    )
    machine = Mock(listing=Mock(return_value=files), serves=Mock(return_value=False))

    def session() -> Any:
        return nullcontext(primary)

    return Clone(machine, PurePosixPath("/srv/db2/data"), CONTROL, "tde_db2", session, session, archive)


@pytest.mark.parametrize("slots", [{}, {"tde_db2": "wal_removed"}], ids=["dropped", "lost"])
def test_a_standby_that_fell_behind_is_fed_from_the_archive(slots: Mapping[str, str]) -> None:
    """It has the files 3 and 4, and the primary begins with 8."""
    own = [name(3), name(4)]
    assert clone(None, slots, 8, own).missing() == WAL_GONE
    assert clone(archived(*(name(number) for number in range(5, 8))), slots, 8, own).missing() is None
    assert clone(archived(name(5), name(7)), slots, 8, own).missing() == WAL_GONE


def test_what_the_primary_has_is_not_looked_for() -> None:
    machine = Mock()
    assert clone(Archived(machine, "orders", SIZE), {}, 3, [name(3)]).missing() is None
    assert machine.output.call_count == 0
