"""What a review makes of a preview: the verdict, what each server goes through, drift apart from declared change."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tde_replication.adapter import Managed
from tde_replication.errors import UserError
from tde_replication.postgres import resources
from tde_replication.records import Cost, Unasked
from tde_replication.review import Review, as_json, as_text, read, review
from tde_replication.review.__main__ import main
from tde_replication.review.changes import Change
from tde_replication.review.effects import Effect
from tde_replication.review.findings import Verdict
from tde_replication.review.handling import FOLLOWING, HANDLING
from tde_replication.review.plain import brief
from tests.unit.previews import SECRET, UNKNOWN, Stream, changed, server
from tests.unit.review_example import orders

RESTART = Cost(kind="restart", server="db1", text="server db1 will be restarted: max_connections", of="Server")
CLONE = Cost(
    kind="clone", server="db2", text="db2: a new base backup of db1", size=2**30, free=2**31, of="DataDirectory"
)


def reviewed(stream: Stream) -> Review:
    return review(read(stream.text))


def test_nothing_to_do() -> None:
    same = server("db1")
    found = reviewed(Stream().refresh("Server", "db1", same, same).plan("same", "Server", "db1", same, same))
    assert (found.stack, found.verdict, found.sentence) == ("orders", Verdict.NOTHING, "nothing to do")
    assert as_text([found]) == "orders: nothing to do"


def test_a_reload_interrupts_nobody() -> None:
    found = reviewed(changed(Stream().record(Cost(kind="reload", server="db1", of="Server")), work_mem="9MB"))
    assert (found.verdict, found.effects[0].text) == (
        Verdict.CHANGES,
        "reloads its configuration; nobody is disconnected",
    )
    assert found.declared == [Change("Server db1", "settings.work_mem", None, "9MB")]
    assert found.drift == []


def test_a_restart_interrupts_and_says_whom() -> None:
    found = reviewed(changed(Stream().record(RESTART), max_connections="200"))
    assert (found.verdict, found.sentence) == (Verdict.INTERRUPTS, "interrupts db1 (primary); loses nothing")
    told = "will be restarted: max_connections; its clients are disconnected, and can connect again once it has started"
    assert found.effects == [Effect("db1", "restart", told)]


def test_a_cost_of_what_is_not_planned_does_not_count() -> None:
    """As the refresh told it of drift that the stack file has come to declare."""
    for other in (Cost(kind="restart", server="db2", of="Server"), Cost(kind="restart", of="WalEncryption")):
        assert reviewed(changed(Stream().record(other, early=True), work_mem="9MB")).verdict == Verdict.CHANGES


@pytest.mark.parametrize(("planned", "verdict"), [(False, Verdict.INTERRUPTS), (True, Verdict.CHANGES)])
def test_what_the_plan_says_of_a_server_replaces_what_the_refresh_said(planned: bool, verdict: Verdict) -> None:  # noqa: FBT001
    stream = Stream().record(RESTART, early=True)
    if planned:
        stream.record(Cost(kind="reload", server="db1", of="Server"))
    assert reviewed(changed(stream, work_mem="9MB")).verdict == verdict


@pytest.mark.parametrize("form", ["text", "digest"])
def test_drift_is_told_apart_from_declared_change(form: str) -> None:
    """Of one value each, and of one that was changed in both ways."""
    recorded = {"work_mem": "4MB", "jit": "on", "port": "5432", "wal_level": "replica"}
    found = {"work_mem": "1MB", "jit": "on", "port": "1", "wal_level": "replica"}
    declared = {"work_mem": "4MB", "jit": "off", "port": "2", "wal_level": "replica"}
    was, live, wanted = (server("db1", settings=one) for one in (recorded, found, declared))
    made = review(read(getattr(Stream().change("Server", "db1", was, live, wanted), form)))
    assert made.drift == [
        Change("Server db1", "settings.work_mem", "1MB", "4MB"),
        Change("Server db1", "settings.port", "1", "2"),
    ]
    assert made.declared == [
        Change("Server db1", "settings.jit", "on", "off"),
        Change("Server db1", "settings.port", "5432", "2"),
    ]


@pytest.mark.parametrize("form", ["text", "digest"])
def test_what_is_gone_is_drift_and_what_is_new_is_declared(form: str) -> None:
    file = {"host": "ssh://db1", "path": "/pg/pgpass", "content": SECRET}
    stream = Stream().change("HostFile", "db2-pgpass", file, None, file)
    stream.plan("create", "HostFile", "db3-pgpass", None, file)
    made = review(read(getattr(stream, form)))
    assert made.drift == [Change("HostFile db2-pgpass", "", "gone", "made again")]
    assert made.declared == [Change("HostFile db3-pgpass", "", None, "new")]
    assert "(secret)" in str(made.diff)


def test_a_clone_says_how_much_and_whether_it_fits() -> None:
    clone = {**server("db2"), "follows": "the primary"}
    lost = {**clone, "follows": "the WAL that it needs is gone"}
    stream = Stream().refresh("DataDirectory", "db2", clone, lost).record(CLONE)
    for step in ("delete-replaced", "replace", "create-replacement"):
        stream.plan(step, "DataDirectory", "db2", lost, None if step == "delete-replaced" else clone)
        stream.plan(step, "Server", "db2", server("db2"), {**server("db2"), "madeAt": UNKNOWN})
    made = reviewed(stream)
    assert made.effects[0].text == "a new base backup of db1 (2.0 GiB are free: it fits)"
    assert made.sentence == "interrupts db2 (standby); loses nothing"
    assert made.drift == [Change("DataDirectory db2", "follows", "the WAL that it needs is gone", "the primary")]
    assert made.declared == [], "what only follows from it is not the stack file's"
    assert made.unknown == ["known during up: madeAt of Server db2"]
    assert [one.operation for one in made.diff] == ["replace", "replace"]
    assert "it does not fit" in str(reviewed(stream.record(Cost(kind="clone", server="db2", size=9, free=1))).effects)


def test_a_clone_says_for_how_long_the_server_is_away() -> None:
    """Where its last base backup was measured; else nothing."""
    for seconds, told in ((140.0, ", for about 2 min"), (None, "")):
        stream = (
            Stream()
            .record(replace(CLONE, seconds=seconds))
            .change("Server", "db2", server("db2"), server("db2"), {**server("db2"), "madeAt": UNKNOWN}, "replace")
        )
        made = reviewed(stream.plan("replace", "DataDirectory", "db2", server("db2"), server("db2")))
        assert made.sentence == f"interrupts db2 (standby{told}); loses nothing"
        assert json.loads(as_json([made]))[0]["effects"][0]["seconds"] == seconds


def place(name: str, cluster: str = "") -> dict[str, Any]:
    return {"host": f"ssh://{cluster}{name}", "data_directory": "/pg"}


def test_each_cost_is_at_its_own_server() -> None:
    """A rule of pg_hba.conf is on the primary and on standbys that others stream from; a key only on the primary."""
    stream = Stream()
    for name in ("db1", "db2", "db3"):
        stream.refresh("Server", name, server(name), server(name))
    rule = {**server("db1"), "upstreams": ["db2"]}
    stream.change("HbaRule", "rule", rule, {**rule, "loaded": False}, rule)
    stream.change("KeyBinding", "server key", server("db1"), server("db1"), {**server("db1"), "key": "next"})
    for name in ("db2", "db1"):
        stream.record(Cost(kind="reload", of="HbaRule", **place(name)))
    stream.record(Cost(kind="rotation", of="KeyBinding", **place("db3")))  # where the primary is now
    found = [(one.server, one.kind) for one in reviewed(stream).effects]
    assert found == [("db2", "reload"), ("db1", "reload"), ("db3", "rotation")]


def test_what_no_server_is_known_of_is_the_cluster_s() -> None:
    stream = changed(Stream().record(Cost(kind="reload", of="Server")), work_mem="9MB")
    assert [one.server for one in reviewed(stream).effects] == ["cluster"]


def test_a_server_that_is_restarted_is_not_told_to_reload() -> None:
    reload = Cost(kind="reload", of="Server", **place("db1"))
    made = reviewed(changed(Stream().record(reload).record(RESTART), max_connections="200"))
    assert [one.kind for one in made.effects] == ["restart"]


def two_clusters() -> Stream:
    """In one stack, each with a db1 and a db2; that of the ledger is a standby."""
    stream = Stream()
    for cluster, recovery in (("shop", "none"), ("ledger", "standby")):
        stream.cluster = cluster
        for name in ("db1", "db2"):
            was = {
                **server(name),
                "host": f"ssh://{cluster}{name}",
                "recovery": recovery if name == "db1" else "standby",
            }
            wanted = {**was, "settings": {"max_connections": "9"}} if name == "db1" else was
            stream.change("Server", f"{cluster}-{name}", was, was, wanted, "update" if name == "db1" else "same")
    return stream


def test_two_clusters_with_servers_of_the_same_names_are_told_apart() -> None:
    stream = two_clusters().record(replace(RESTART, **place("db1", "shop")))
    made = reviewed(stream.record(Cost(kind="reload", server="db1", of="Server", **place("db1", "ledger"))))
    assert [(one.server, one.kind) for one in made.effects] == [("shop/db1", "restart"), ("ledger/db1", "reload")]
    assert made.sentence == "interrupts shop/db1 (primary); loses nothing"
    assert made.roles["ledger/db1"] == "standby"
    stream = two_clusters().record(
        Cost(kind="clone", text="db2: a new base backup", of="DataDirectory", **place("db2", "shop"))
    )
    assert reviewed(stream).verdict == Verdict.CHANGES, "nothing of it is planned"
    stream.plan("replace", "DataDirectory", "db2", None, {**server("db2"), "host": "ssh://shopdb2"})
    assert [(one.server, one.text) for one in reviewed(stream).effects] == []
    stream.cluster = "shop"
    stream.plan("replace", "DataDirectory", "shop-db2", None, {**server("db2"), "host": "ssh://shopdb2"})
    assert [(one.server, one.text) for one in reviewed(stream).effects] == [("shop/db2", "a new base backup")]


def test_a_switchover_of_one_of_two_clusters_says_of_which() -> None:
    stream = two_clusters()
    cost = Cost(kind="switchover", server="db1", seconds=1.0, of="Topology", **place("db1", "shop"))
    stream.record(cost).cluster = "ledger"
    topology = {"primary": "db1"}
    stream.change("Topology", "ledger", topology, topology, {"primary": "db2"})
    assert reviewed(stream).effects == [], "the other cluster's is planned"
    stream.cluster = "shop"
    stream.change("Topology", "shop", topology, topology, {"primary": "db2"})
    assert reviewed(stream).sentence == "interrupts writes to shop for about 1 s; loses nothing"


def test_a_container_is_its_server() -> None:
    """Also of one of several clusters."""
    container = {"name": "orders-shop-db1", "image": "a"}
    stream = two_clusters()
    stream.cluster = "shop"
    here = {**server("db3"), "host": "docker://orders-shop-db1"}
    stream.refresh("Server", "shop-db3", here, here)
    kind = "docker:index/container:Container"
    stream.change(kind, "shop-db3", container, container, {**container, "image": "b"}, "replace")
    assert [(one.server, one.kind) for one in reviewed(stream).effects] == [("shop/db3", "stop")]


def test_a_switchover_interrupts_the_former_primary_and_a_failover_may_lose_something() -> None:
    was, wanted = {"primary": "db1", "servers": []}, {"primary": "db2", "servers": []}
    cost = Cost(kind="switchover", server="db1", text="switchover from db1 to db2", seconds=1.0, of="Topology")
    stream = Stream().record(cost).change("Topology", "orders", was, was, wanted)
    primary = server("db1")
    made = reviewed(stream.change("Server", "db1", primary, primary, {**primary, "recovery": "standby"}))
    assert (made.verdict, made.sentence) == (Verdict.INTERRUPTS, "interrupts writes for about 1 s; loses nothing")
    assert made.effects == [Effect("db1", "switchover", "switchover from db1 to db2", seconds=1.0)]
    assert made.declared[0] == Change("Topology orders", "primary", "db1", "db2")
    lossy = Cost(kind="switchover", server="db2", text="failover", loses="what db1 had written last", of="Topology")
    made = reviewed(Stream().record(lossy).change("Topology", "orders", was, was, wanted))
    assert made.sentence == "loses what db1 had written last; interrupts db2"


def test_what_is_only_handled_in_another_way_is_in_the_full_diff_alone() -> None:
    was = {**server("db2"), "role": "standby", "follows": "the primary", "upstream": {"host": "192.0.2.1"}}
    wanted = {**was, "role": "primary", "upstream": {"host": "192.0.2.2"}, "follows": "nothing"}
    made = reviewed(Stream().change("DataDirectory", "db2", was, was, wanted))
    assert made.declared == [Change("DataDirectory db2", "follows", "the primary", "nothing")]
    assert {change.what for change in made.diff[0].changes} == {"role", "upstream.host", "follows"}


@pytest.mark.parametrize("operation", ["update", "replace"])
def test_where_the_next_primary_is_is_told_once(operation: str) -> None:
    """By `Topology`; what is replaced for it says why."""
    was = {"dataDirectory": "/srv/db3", "primaryDirectory": "/srv/db1", "senderDirectory": ""}
    wanted = {**was, "primaryDirectory": "/srv/db2"}
    stream = Stream().change("ReplicationCheck", "db3", was, was, wanted, operation)
    clone = {"primaryIdentifier": "1", "follows": "the primary"}
    stream.change("DataDirectory", "db3", clone, clone, {**clone, "primaryIdentifier": "2"}, operation)
    made = reviewed(stream)
    told = {change.what for change in made.declared}
    assert told == (set() if operation == "update" else {"primaryDirectory", "primaryIdentifier"})
    assert {one.what for step in made.diff for one in step.changes} == {"primaryDirectory", "primaryIdentifier"}


def test_what_is_lost_is_the_verdict() -> None:
    mount = {"path": "tde-orders"}
    stream = changed(Stream().record(RESTART), max_connections="200")
    made = reviewed(stream.plan("delete", "vault:index/mount:Mount", "orders-mount", mount, None))
    assert made.verdict == Verdict.LOSES
    assert made.sentence == "loses the Vault mount orders-mount with every key in it; interrupts db1 (primary)"
    made = reviewed(changed(Stream().record(Cost(kind="reload", loses="what db2 has", of="Server")), work_mem="9MB"))
    assert made.sentence == "loses what db2 has"


@pytest.mark.parametrize(("disposable", "verdict"), [(True, Verdict.LOSES), (False, Verdict.INTERRUPTS)])
def test_data_that_is_set_aside_is_not_lost(disposable: bool, verdict: Verdict) -> None:  # noqa: FBT001
    directory = {**server("db1"), "disposable": disposable}
    made = reviewed(Stream().plan("delete", "DataDirectory", "db1", directory, None))
    assert made.verdict == verdict


def test_a_refusal_names_its_server_and_shows_the_drift_behind_it() -> None:
    before, found = server("db1", replay="running"), server("db1", replay="paused")
    stream = Stream(result="failed").refresh("Server", "db1", before, found)
    problem = "pulumi-python:dynamic/postgres:Server resource 'db1' has a problem: restart: refused"
    made = reviewed(stream.say(problem, "error", stream.urn("Server", "db1")))
    assert made.verdict == Verdict.REFUSED
    assert made.effects == [Effect("db1", "refused", "restart: refused")]
    assert made.drift == [Change("Server db1", "replay", "paused", "running")]


def test_a_refusal_after_a_switchover_shows_no_drift() -> None:
    """A refresh finds what lies on the primary where the primary is, and that is not what the state has."""
    there = {"dataDirectory": "/srv/db2/data", "others": [["local", "/srv/db1/data"]], "address": "127.0.0.1/32"}
    here = {"dataDirectory": "/srv/db1/data", "others": [["local", "/srv/db2/data"]], "address": "127.0.0.1/32"}
    stream = Stream(result="failed").refresh("HbaRule", "rule", there, here)
    made = reviewed(stream.refresh("HbaRule", "edited", there, here | {"address": "0.0.0.0/0"}))
    assert made.drift == [Change("HbaRule edited", "address", "0.0.0.0/0", "127.0.0.1/32")]


def test_an_error_in_a_preview_that_came_to_its_end_is_a_note() -> None:
    """Such as of a plugin that ended while Pulumi took it down."""
    made = reviewed(changed(Stream().say("a plugin exited prematurely", "error"), work_mem="9MB"))
    assert (made.verdict, made.notes) == (Verdict.CHANGES, ["a plugin exited prematurely"])


@pytest.mark.parametrize("form", ["text", "digest"])
def test_mistakes_of_a_stack_file_are_told_together(form: str) -> None:
    stream = Stream(result="failed").say("error: stacks/Pulumi.orders.yaml has 1 mistake:\n", "info#err")
    stream.say("  cluster.port: 70000 is not a port\n", "info#err").say("warning: NOT ENCRYPTED", "info#err")
    stream.say("a progress").say("careful", "warning")
    made = review(read(getattr(stream, form)))
    told = "stacks/Pulumi.orders.yaml has 1 mistake:\ncluster.port: 70000 is not a port"
    assert made.effects == [Effect("cluster", "refused", told)]
    assert made.notes == ["NOT ENCRYPTED", "careful"]


def test_a_preview_that_was_interrupted_is_not_taken_for_a_whole_one() -> None:
    events = changed(Stream(), work_mem="9MB").text.splitlines()
    made = review(read("\n".join(line for line in events if "summaryEvent" not in line)))
    assert (made.verdict, made.sentence.split(",")[0]) == (Verdict.REFUSED, "the preview did not finish")


def test_without_costs_it_is_not_said_that_nobody_is_interrupted() -> None:
    made = review(read(changed(Stream().record(RESTART), max_connections="200").digest))
    assert made.sentence == "changes; whether it interrupts is not known"
    assert "PULUMI_ENABLE_STREAMING_JSON_PREVIEW" in made.unknown[0]


def test_what_could_not_be_asked_is_told_once_by_reason() -> None:
    stream = changed(Stream(), work_mem="9MB").say("not checked: db2 is silent.", "warning")
    for what in ("Server db2", "HostFile x", "Server db2"):
        stream.record(Unasked(what=what, why="db2 is silent"))
    made = reviewed(stream)
    assert made.unknown == ["not asked: Server db2, HostFile x: db2 is silent"]
    assert made.notes == []


def test_the_json_is_for_programs_and_the_worst_comes_first() -> None:
    calm, worse = reviewed(changed(Stream("a"), work_mem="1MB")), reviewed(changed(Stream("b").record(RESTART), x="1"))
    first, second = json.loads(as_json([calm, worse]))
    assert (first["stack"], first["verdict"], second["verdict"]) == ("b", "interrupts", "changes")
    assert as_text([calm, worse]).startswith("b: interrupts")


def test_a_text_from_a_machine_is_escaped_on_a_terminal() -> None:
    text = as_text([reviewed(changed(Stream().say("\x1b[2J", "warning"), work_mem="\x1b]0;x\x07"))])
    assert "\x1b" not in text
    assert text.count(r"\x1b") == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "no json", '{"steps": 7}', '{"steps": [{}]}', '{"resourcePreEvent": 1}']
)
def test_what_is_no_preview_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"^orders\.json (is not the JSON|holds no event) of a Pulumi preview"):
        read(text, "orders.json")


def test_files_of_several_stacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_text(changed(Stream(file.name), work_mem="9MB").text)
    assert main(["--format", "markdown", *map(str, files)]) == 0
    assert capsys.readouterr().out.startswith("| stack | verdict |")
    monkeypatch.setattr(sys, "stdin", io.StringIO(files[0].read_text()))
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("a: changes")


def test_what_only_handles_a_resource_is_as_its_reconciler_says() -> None:
    kinds = {one.provider.kind.called or name: one.provider.kind for name, one in managed()}
    for name, inputs in HANDLING.items():
        kind = kinds[name]
        assert inputs == {kind.model_fields[field].alias for field in kind.not_compared | kind.create_only}, name
    for name, inputs in FOLLOWING.items():
        assert inputs <= {field.alias for field in kinds[name].model_fields.values()}, name
    watched = {name for name, kind in kinds.items() if kind.not_compared | kind.create_only - {"host"}}
    assert watched - HANDLING.keys() == set()


def managed() -> list[tuple[str, Any]]:
    return [
        (one._resource_type_name.rpartition(":")[2], one)
        for one in vars(resources).values()
        if isinstance(one, type)
        and issubclass(one, Managed)
        and "provider" in vars(one)
        and one.__name__ != "AdoptedDirectory"
    ]


def test_the_docs_show_what_the_code_prints() -> None:
    """Also as a picture: `python -m tests.report.pictures`."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "review.md").read_text()
    assert f"```\n{as_text([orders()])}\n```\n" in page


def test_a_whole_text_is_not_shown_among_other_values() -> None:
    """As a Vault policy, of which a switchover changes two: it is in the full diff."""
    assert brief("one line") == "one line"
    assert brief("one\ntwo\nthree") == "a text of 3 lines"
    assert brief(None) == "(none)"


def test_of_a_text_that_changes_its_own_lines_are_shown() -> None:
    """What a server's Vault policy allows from now on, and what no more."""
    standby = 'path "tde/data/*" {\n  capabilities = ["read"]\n}\n'
    primary = standby.replace('["read"]', '["create", "read"]') + 'path "sys/mounts/tde" {\n}\n'
    assert brief(standby, primary) == 'a text of 3 lines with capabilities = ["read"]'
    assert brief(primary, standby) == (
        'a text of 5 lines with capabilities = ["create", "read"]; path "sys/mounts/tde" {'
    )
    assert brief("two\none", "one\ntwo") == "a text of 2 lines"
