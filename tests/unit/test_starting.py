"""Which lines of a server's log tell of its end."""

import pytest

from components.postgres.starting import last_words

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
