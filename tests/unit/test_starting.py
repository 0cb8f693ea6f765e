"""Which lines of a server's log tell of its end."""

import pytest

from tde_replication.postgres.starting import cause_of_end, last_words

SERVER = "2026-01-01 00:00:00 UTC [42] "


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('FATAL:  could not access file "x": No such file', 'could not access file "x": No such file'),
        ("PANIC:  could not locate a valid checkpoint record", "could not locate a valid checkpoint record"),
        ("LOG:  database system is ready to accept connections", None),
        ("FATAL:  terminating walreceiver process due to administrator command", None),
        ("FATAL:  the database system is starting up", None),
        (
            "FATAL:  could not connect to the primary server: connection failed: FATAL:  password authentication failed",
            None,
        ),
        ("FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment is gone", None),
    ],
)
def test_what_is_the_cause_of_an_end(line: str, told: str | None) -> None:
    assert last_words(SERVER + line) == told


def test_a_message_that_goes_on_is_none() -> None:
    assert (
        last_words('\tconnection to server failed: FATAL:  password authentication failed for user "replicator"')
        is None
    )


REASON = '"superuser_reserved_connections" (3) plus "reserved_connections" (0) must be less than "max_connections" (3)'


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ([f"postgres: {REASON}"], REASON),
        (
            [f"{SERVER}ВАЖНО:  нет доступа", "tde-db1.service: Main process exited, code=exited, status=1/FAILURE", ""],
            f"the last line of its log is: {SERVER}ВАЖНО:  нет доступа",
        ),
        (
            [
                f'{SERVER}LOG:  invalid value for parameter "work_mem": "lots"',
                f'{SERVER}FATAL:  configuration file "/x" contains errors',
            ],
            'configuration file "/x" contains errors: invalid value for parameter "work_mem": "lots"',
        ),
        ([], "its log is empty"),
    ],
)
def test_the_reason_of_an_end_whatever_its_tag(log: list[str], cause: str) -> None:
    assert cause_of_end(log) == cause
