"""What a preview records for programs: written among the engine's messages, and read from them."""

import json
from typing import Any

import pytest

from tde_replication.records import MARK, Cost, Fact, Unasked, read, roughly, written

COST = Cost(
    kind="clone",
    server="db2",
    text='a new base backup of "db1"',
    size=2**40,
    free=7,
    seconds=4.5,
    loses="what db2 has",
    of="B",
)


PLACE: dict[str, Any] = {"host": "ssh://db1", "data_directory": "/pg"}


@pytest.mark.parametrize(
    "record",
    [
        COST,
        Cost(kind="reload", **PLACE),
        Fact(kind="free", of="db1", number=7, **PLACE),
        Unasked(what="Server db1", why="it is silent"),
    ],
)
def test_a_record_is_read_as_it_was_written(record: Cost | Fact | Unasked) -> None:
    assert read(f"debug: {written(record)}\n") == record


@pytest.mark.parametrize(
    "message",
    [
        "server db1 will be restarted",
        MARK,
        f"{MARK}[]",
        f"{MARK}7",
        f'{MARK}{{"cost": 7}}',
        f'{MARK}{{"cost": {{"kind": "reload", "shell": "x"}}}}',
        f'{MARK}{{"other": {{}}}}',
        f"{MARK}{json.dumps({'cost': {}})}",
    ],
)
def test_what_is_no_record_is_none(message: str) -> None:
    assert read(message) is None


def test_a_text_from_a_machine_is_escaped_and_stays_on_one_line() -> None:
    line = written(Unasked(what="\x1b[2J", why="a\n##vso[x]"))
    assert "\n" not in line
    record = read(line)
    assert isinstance(record, Unasked)
    assert (record.what, record.why) == (r"\x1b[2J", "a\n\\x23#vso[x]")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (59.9, "1 min"),
        (140, "2 min"),
        (152, "3 min"),
        (3590, "1 h 0 min"),
        (9000, "2 h 30 min"),
    ],
)
def test_a_time_that_is_only_expected(seconds: float, words: str) -> None:
    assert roughly(seconds) == words
