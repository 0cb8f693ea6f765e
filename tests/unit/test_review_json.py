"""The page on the review describes every key of its JSON document, and no other."""

import json
import re
from typing import Any

from bootstrap.project import HERE
from tde_replication.review import Review, as_json
from tde_replication.review.changes import Change
from tde_replication.review.effects import Effect
from tde_replication.review.findings import Altered, Verdict
from tde_replication.review.policies import Finding

CHANGE = Change("Server db1", "port", "1", "2")
WHOLE = Review(
    "orders",
    effects=[Effect("db1", "restart", "it restarts")],
    drift=[CHANGE],
    declared=[CHANGE],
    policies=[Finding("slot-cap", mandatory=True, text="it has none")],
    diff=[Altered("update", "Server db1", (CHANGE,))],
)


def keys(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document) | {key for value in document.values() for key in keys(value)}
    return {key for value in document for key in keys(value)} if isinstance(document, list) else set()


def section() -> str:
    page = (HERE.root / "docs" / "review.md").read_text()
    return re.split(r"\n##+ ", page.partition("### `--format json`")[2])[0]


def test_the_page_has_each_key() -> None:
    [document] = json.loads(as_json([WHOLE]))
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", section(), re.MULTILINE)
    names = {name for row, _ in rows for name in re.findall(r"`([a-z_]+)(?:\[\])?`", row)}
    assert names == set(document)
    assert keys(document) <= set(re.findall(r"`([a-z_]+)(?:\[\])?`", section()))


def test_the_page_has_each_verdict_and_says_which_keys_are_lists() -> None:
    [document] = json.loads(as_json([WHOLE]))
    assert {one.name.lower() for one in Verdict} <= set(re.findall(r"`([a-z]+)`", section()))
    lists = set(re.findall(r"`([a-z_]+)\[\]`", section())) - {"changes"}
    assert lists == {name for name, value in document.items() if isinstance(value, list)}
