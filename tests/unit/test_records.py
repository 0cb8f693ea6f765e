"""What a preview records for programs: written among the engine's messages, and read from them."""

import json

import pytest

from tde_replication.records import MARK, Cost, Unasked, read, written

COST = Cost(
    kind="clone", server="db2", text='a new base backup of "db1"', size=2**40, free=7, loses="what db2 has", of="B"
)


@pytest.mark.parametrize("record", [COST, Cost(kind="reload"), Unasked(what="Server db1", why="it is silent")])
def test_a_record_is_read_as_it_was_written(record: Cost | Unasked) -> None:
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
