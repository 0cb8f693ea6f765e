"""Policies in a review: what a policy pack has said, and what is judged here of the plan's costs."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tde_replication.records import Cost, Fact
from tde_replication.review import as_json, as_markdown, as_text, read, review
from tde_replication.review.findings import Verdict
from tde_replication.review.policies import Environment
from tests.unit.previews import Stream, changed, server

RESTART = Cost(kind="restart", server="db1", text="server db1 will be restarted", of="Server")
SUNDAY, MONDAY = datetime(2026, 11, 29, 2, 30, tzinfo=UTC), datetime(2026, 11, 30, 2, 30, tzinfo=UTC)


def judged(stream: Stream, rules: dict[str, Any], now: datetime = MONDAY, *labels: str) -> Any:
    return review(read(stream.text), Environment(rules), labels=labels, now=now)


def said(stream: Stream, policy: str, level: str, text: str) -> Stream:
    event = {"policyName": policy, "enforcementLevel": level, "message": f"<{{%reset%}}>Why.\n{text}<{{%reset%}}>\n"}
    stream.planned.append({"policyEvent": event})
    return stream


def tried(stream: Stream, *passed: str) -> Stream:
    stream.planned.append({"policyAnalyzeSummaryEvent": {"passed": list(passed), "failed": None}})
    return stream


def restart() -> Stream:
    return changed(Stream().record(RESTART), max_connections="200")


def clone(size: int, recorded: dict[str, Any] | None = None) -> Stream:
    primary = server("db1")
    stream = Stream().refresh("Server", "db1", primary, primary).plan("same", "Server", "db1", primary, primary)
    stream.record(Cost(kind="clone", server="db2", text="db2: a new base backup of db1", size=size, of="DataDirectory"))
    return stream.plan("replace" if recorded else "create", "DataDirectory", "db2", recorded, server("db2"))


def test_a_pack_that_warns_changes_no_verdict() -> None:
    stream = tried(said(changed(Stream(), work_mem="9MB"), "standbys", "advisory", "it has 0 standbys"), "a", "b", "a")
    found = judged(stream, {})
    assert (found.verdict, found.passed) == (Verdict.CHANGES, ["a", "b"])
    assert "policies: 2 passed, 1 warning\n  standbys (warning): it has 0 standbys\n" in as_text([found])
    assert "**Policies**: 2 passed, 1 warning\n\n- standbys (warning): it has 0 standbys\n" in as_markdown([found])
    [one] = json.loads(as_json([found]))
    assert one["policies"] == [{"policy": "standbys", "mandatory": False, "text": "it has 0 standbys"}]


def test_a_pack_that_refuses_is_the_verdict() -> None:
    stream = said(changed(Stream(result="failed"), work_mem="9MB"), "protected", "mandatory", "db1 is not protected")
    stream = said(stream, "protected", "mandatory", "the mount is not protected")
    found = judged(stream, {})
    assert (found.verdict, found.sentence) == (Verdict.REFUSED, "is refused by policy protected")
    assert "policies: 1 refuses\n" in as_text([found])


def test_where_all_hold_that_is_said() -> None:
    found = judged(tried(changed(Stream(), work_mem="9MB"), "standbys"), {})
    assert "policies: 1 passed\n" in as_text([found])
    assert "**Policies**: 1 passed\n" in as_markdown([found])
    assert "olicies" not in as_text([review(read(changed(Stream(), work_mem="9MB").text))])


WINDOW = {"primary-in-window": {"windows": ["Sat,Sun 02:00-05:00"]}}


def test_the_primary_is_restarted_within_its_window_only() -> None:
    assert judged(restart(), WINDOW, SUNDAY).passed == ["primary-in-window"]
    found = judged(restart(), WINDOW, MONDAY)
    assert found.verdict == Verdict.REFUSED
    assert [(one.mandatory, one.text) for one in found.policies] == [
        (True, "primary db1 is restarted: only within Sat,Sun 02:00-05:00 (UTC), and it is Mon 02:30")
    ]
    assert judged(changed(Stream(), work_mem="9MB"), WINDOW, MONDAY).passed == ["primary-in-window"]


def test_tables_are_rewritten_within_the_window_only() -> None:
    inputs = {**server("db1"), "database": "app", "toEncrypt": []}
    place: dict[str, Any] = {"host": "ssh://db1", "data_directory": "/pg"}
    stream = Stream().record(Cost(kind="rewrite", text="encrypts 3 tables", size=9, of="TableEncryption", **place))
    stream.refresh("Server", "db1", server("db1"), server("db1"))
    stream.change("TableEncryption", "tables of app", inputs, {**inputs, "toEncrypt": ["public.t"]}, inputs)
    found = judged(stream, WINDOW, MONDAY)
    assert ("db1", "rewrite", "encrypts 3 tables") in [(one.server, one.kind, one.text) for one in found.effects]
    assert judged(stream, {}).sentence.startswith("interrupts db1")
    assert [one.text.partition(":")[0] for one in found.policies] == ["primary db1 rewrites tables"]


def test_a_standby_may_be_restarted_at_any_time_and_a_base_backup_not() -> None:
    before = server("db2", settings={})
    of_standby = Cost(kind="restart", server="db2", of="Server")
    stream = Stream().record(of_standby).change("Server", "db2", before, before, {**before, "settings": {"a": "b"}})
    assert judged(stream, WINDOW, MONDAY).policies == []
    assert [one.text.partition(":")[0] for one in judged(clone(1), WINDOW, MONDAY).policies] == ["db2 is cloned"]


def test_a_cluster_that_is_new_interrupts_nobody() -> None:
    stream = Stream().plan("create", "Server", "db1", None, server("db1"))
    stream.record(Cost(kind="clone", server="db2", size=1, of="DataDirectory"))
    assert judged(stream.plan("create", "DataDirectory", "db2", None, server("db2")), WINDOW, MONDAY).policies == []


@pytest.mark.parametrize(
    ("window", "moment", "holds"),
    [
        ("22:00-03:00", "30T23:00", True),
        ("22:00-03:00", "30T02:59", True),
        ("22:00-03:00", "30T03:00", False),
        ("Mon 22:00-03:00", "30T02:00", False),  # that is Sunday's night
        ("Sun 22:00-03:00", "30T02:00", True),
        ("00:00-00:00", "30T12:00", True),
    ],
)
def test_a_window_may_end_the_next_day(window: str, moment: str, *, holds: bool) -> None:
    rules = {"primary-in-window": {"windows": [window]}}
    now = datetime.fromisoformat(f"2026-11-{moment}:00+00:00")
    assert (judged(restart(), rules, now).policies == []) == holds


def test_a_large_clone_needs_a_label() -> None:
    rules = {"clone-size": {"enforcementLevel": "advisory", "most": "1GB", "label": "may-clone"}}
    assert judged(clone(2**30), rules).policies == []
    found = judged(clone(2**31), rules)
    assert [(one.mandatory, one.text) for one in found.policies] == [
        (False, "db2 is cloned, 2.0 GiB: more than 1GB needs the label may-clone")
    ]
    assert found.verdict != Verdict.REFUSED
    assert judged(clone(2**31), rules, MONDAY, "may-clone").policies == []


def existing(*facts: Fact) -> Stream:
    """A primary with a key that is used, and a change."""
    stream = changed(Stream(), max_slot_wal_keep_size="4GB")
    stream.refresh("PrincipalKey", "orders-2026", {"key": "orders-2026"}, {"key": "orders-2026"})
    for fact in facts:
        stream.record(fact, early=True)
    return stream


SINCE = "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("rule", "values", "fact", "says"),
    [
        ("key-age", {"days": 365}, Fact(kind="key since", of="orders-2026", text=SINCE), ""),
        (
            "key-age",
            {"days": 300},
            Fact(kind="key since", of="orders-2026", text=SINCE),
            "key orders-2026 is 333 days old, of 300: set key.rotateAfter, or give key.name another value",
        ),
        (
            "key-age",
            {"days": 400},
            Fact(kind="key since", of="orders-2026", text=SINCE, number=300 * 86400),
            "key orders-2026 is 333 days old and past its key.rotateAfter, and this plan does not rotate it",
        ),
        ("key-age", {"days": 400}, Fact(kind="key since", of="orders-2026", text=SINCE, number=350 * 86400), ""),
        ("key-age", {"days": 300}, None, "it is not known how old key orders-2026 is"),
        (
            "pg-tde-faults",
            {"accepted": []},
            Fact(kind="pg_tde", of="orders-2026", text="pg_tde 2.2.2", number=180006),
            "pg_tde 2.2.2: mlock may fail",
        ),
        (
            "pg-tde-faults",
            {"accepted": ["mlock"]},
            Fact(kind="pg_tde", of="orders-2026", text="pg_tde 2.2.2", number=180006),
            "",
        ),
        (
            "pg-tde-faults",
            {"accepted": ["mlock"]},
            Fact(kind="pg_tde", of="orders-2026", text="pg_tde 2.2.2", number=180003),
            "pg_tde 2.2.2: it needs Percona Server 18.4",
        ),
        ("pg-tde-faults", {"accepted": []}, None, "it is not known which pg_tde the primary has"),
        ("slot-room", {"percent": 100}, Fact(kind="free", of="db1", number=5 * 2**30), ""),
        (
            "slot-room",
            {"percent": 75},
            Fact(kind="free", of="db1", number=5 * 2**30),
            "slots on db1 may hold back 4GB of WAL, and its disk has 5.0 GiB free",
        ),
        ("slot-room", {"percent": 100}, None, "it is not known how much is free on the disk of db1"),
    ],
)
def test_a_rule_by_facts(rule: str, values: dict[str, Any], fact: Fact | None, says: str) -> None:
    found = judged(existing(*([fact] if fact else [])), {rule: values})
    assert [one.text.startswith(says) for one in found.policies] == ([True] if says else [])
    assert found.passed == ([] if says else [rule])


def test_facts_of_two_clusters_with_the_same_names_are_told_apart() -> None:
    """In one stack: the ledger's disk is full, and its key is old."""
    stream = Stream()
    for cluster, free, since in (("shop", 2**40, "2026-11-01"), ("ledger", 2**20, "2020-01-01")):
        stream.cluster = cluster
        place = {"host": f"ssh://{cluster}", "dataDirectory": "/pg"}
        there: dict[str, Any] = {"host": f"ssh://{cluster}", "data_directory": "/pg"}
        primary = {**server("db1"), **place, "settings": {"max_slot_wal_keep_size": "4GB"}}
        stream.refresh("Server", f"{cluster}-db1", primary, primary)
        key = {**place, "key": "one"}
        stream.refresh("PrincipalKey", f"{cluster}-key", key, key)
        stream.record(Fact(kind="free", of="db1", number=free, **there), early=True)
        stream.record(Fact(kind="key since", of="one", text=f"{since}T00:00:00+00:00", **there), early=True)
    found = judged(stream, {"slot-room": {"percent": 100}, "key-age": {"days": 365}})
    assert [one.text.partition(" may ")[0].partition(" is ")[0] for one in found.policies] == [
        "key ledger/one",
        "slots on ledger/db1",
    ]


def test_a_key_that_is_rotated_now_is_not_held_against_that() -> None:
    old = {"key": "orders-2026"}
    stream = existing(Fact(kind="key since", of="orders-2026", text=SINCE))
    stream.plan("delete", "PrincipalKey", "orders-2026", old, None)
    assert judged(stream, {"key-age": {"days": 300}}).policies == []
    due = existing(Fact(kind="key since", of="orders-2026", text=SINCE, number=86400))
    due.plan("delete", "PrincipalKey", "orders-2026", old, None)
    assert judged(due, {"key-age": {"days": 300}}).policies == []


def test_a_rule_by_facts_has_nothing_to_say_of_a_cluster_that_is_new() -> None:
    new = Stream().plan("create", "Server", "db1", None, server("db1")).plan("create", "PrincipalKey", "k", None, {})
    rules = {"key-age": {"days": 1}, "pg-tde-faults": {"accepted": []}, "slot-room": {"percent": 100}}
    assert judged(new, rules).policies == []


def test_what_is_disabled_or_has_no_value_is_not_tried() -> None:
    for rules in ({}, {"primary-in-window": {**WINDOW["primary-in-window"], "enforcementLevel": "disabled"}}):
        found = judged(restart(), rules)
        assert (found.passed, found.policies) == ([], [])
    everything = {**WINDOW, "all": {"enforcementLevel": "disabled"}}
    assert judged(restart(), everything).policies == []
