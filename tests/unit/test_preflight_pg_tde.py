"""What a preview tells of the pg_tde that servers run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from unittest.mock import Mock

import pytest

from tde_replication import stack_file, unasked
from tde_replication.errors import Unavailable
from tde_replication.preflight import pg_tde as preflight

DOUBLE = "pg_tde contract double (NOT ENCRYPTED, for tests) of 2.2.0"
Answer = tuple[str, int] | None


def notices(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> tuple[list[str], list[str]]:
    """Of servers db1, db2, … with these versions of pg_tde and PostgreSQL, or that do not answer; and what was not asked."""

    @contextmanager
    def session(_: object, data: PurePosixPath, *__: object) -> Iterator[Mock]:
        if (answer := answers[int(data.name)]) is None:
            raise Unavailable("db2 does not answer")
        yield Mock(text=answer[0], value=Mock(return_value=str(answer[1])))

    monkeypatch.setattr(preflight, "server_session", session)
    monkeypatch.setattr(preflight, "is_loaded", lambda server: server.text != "not loaded")
    monkeypatch.setattr(preflight, "PgTde", lambda server: Mock(version=lambda: server.text))
    monkeypatch.setattr("tde_replication.hosts.host", lambda _: Mock(listing=lambda _: ["PG_VERSION"]))
    names = [f"db{number + 1}" for number in range(len(answers))]
    placements = [Mock(data=PurePosixPath(f"/srv/{number}")) for number in range(len(answers))]
    said: list[str] = []
    with unasked.told(said.append):
        return preflight.notices_of_version(stack_file.parse("test", {}), names, placements), said


def test_each_fault_is_told_once_with_its_servers_and_the_release_that_repairs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, unknown = notices(monkeypatch, ("pg_tde 2.2.1", 180006), ("pg_tde 2.2.1", 180006), ("pg_tde 2.2.2", 180006))
    [told] = found
    assert told == (
        "db1, db2: pg_tde 2.2.1: processes that are forked may use one Vault connection at the same time (repaired in 2.2.2; "
        "PG-2608, release notes of pg_tde 2.2.2, 2026-08)"
    )
    assert unknown == []


def test_a_postgresql_that_is_too_old_for_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    [told], _ = notices(monkeypatch, ("pg_tde 2.2.2", 180006), ("pg_tde 2.2.2", 170009))
    assert told.startswith("db2: pg_tde 2.2.2: it needs Percona Server 17.10 or newer, and this is 17.9 (")


def test_what_has_no_other_version_or_no_pg_tde_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preview that always warns is read by nobody; the status tells what no release repairs."""
    assert notices(monkeypatch, ("pg_tde 2.2.2", 180006), (DOUBLE, 180003), ("not loaded", 180003)) == ([], [])


def test_a_server_that_does_not_answer_is_no_server_without_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    found, [told] = notices(monkeypatch, ("pg_tde 2.2.2", 180006), None)
    assert found == []
    assert "db2 does not answer. Not checked: which pg_tde the server in /srv/1 has" in told
