"""When a test cluster ends, and which stacks a reaper may take away."""

import copy
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tde_replication import reap
from tde_replication.postgres.expiry import Expiry, minute
from tde_replication.values import length

NOW = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
MADE = NOW - timedelta(hours=8)
URN = "urn:pulumi:trial::tde-replication::"
CLUSTER = f"{URN}{reap.CLUSTER}::trial"
DECLARED = {"disposable": True, "expires": "8h"}


LEFT_BEHIND = """\
 -  pulumi:pulumi:Stack trial-f deleting (1s) left behind: ReplicationSlot tde_db2 (no server runs on /srv/db1/data)
Diagnostics:
  pulumi:pulumi:Stack (trial-f):
    left behind: ReplicationSlot tde_db2 (no server runs on /srv/db1/data)
Resources:
    - 3 deleted
"""
KILLED = "a killed `up` was making vault:index/mount:Mount tde: check whether it exists\n"


def test_durations() -> None:
    assert [length(one) for one in ("30m", "8h", "7d")] == [
        timedelta(minutes=30),
        timedelta(hours=8),
        timedelta(days=7),
    ]
    assert minute(datetime.fromisoformat("2026-11-30T10:12:59+01:00")) == "2026-11-30 09:12 UTC"


def test_the_time_is_counted_from_the_creation_whatever_comes_later() -> None:
    made = Expiry(after="8h").create()
    assert datetime.fromisoformat(made.expires_at) - datetime.fromisoformat(made.made_at) == timedelta(hours=8)
    assert made.read() == made
    assert Expiry(after="8h").changed(made) == set()
    longer = Expiry(after="12h").update(made)
    assert longer.made_at == made.made_at
    assert datetime.fromisoformat(longer.expires_at) - datetime.fromisoformat(made.made_at) == timedelta(hours=12)


def state() -> list[dict[str, Any]]:
    """Of a cluster that has just expired."""
    times = {"after": "8h", "madeAt": MADE.isoformat(), "expiresAt": NOW.isoformat()}
    record = "pulumi-python:dynamic/postgres:CleanupRecord"
    return [
        {"urn": f"{URN}pulumi:pulumi:Stack::trial", "type": "pulumi:pulumi:Stack"},
        {"urn": CLUSTER, "type": reap.CLUSTER, "parent": f"{URN}pulumi:pulumi:Stack::trial"},
        {"urn": f"{URN}x::expiry", "type": reap.EXPIRY, "parent": CLUSTER, "outputs": times},
        {"urn": f"{URN}y::db1", "type": record, "parent": CLUSTER, "inputs": {"disposable": True}},
        {
            "urn": f"{URN}y::db1-data",
            "type": reap.DIRECTORY,
            "parent": CLUSTER,
            "inputs": {"name": "db1", "dataDirectory": "/srv/db1/data", "disposable": True},
            "outputs": {"name": "db1", "dataDirectory": "/srv/db1/data", "origin": "initdb"},
        },
        {"urn": f"{URN}m::m", "type": reap.MOUNT, "parent": CLUSTER, "inputs": {"path": "tde-trial"}},
        {"urn": f"{URN}z::v", "type": "pulumi:providers:vault", "parent": CLUSTER},
        {"urn": f"{URN}w::default", "type": "pulumi:providers:pulumi-python"},
    ]


def edited(change: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
    made = copy.deepcopy(state())
    change(made)
    return made


@pytest.mark.parametrize("declared", [None, DECLARED, {**DECLARED, "expires": "1h"}])
def test_a_stack_whose_time_has_come(declared: dict[str, Any] | None) -> None:
    assert reap.judge(state(), declared, NOW) == reap.Verdict(due=True, why="expired 2026-11-30 09:00 UTC")


@pytest.mark.parametrize(
    ("resources", "declared", "why"),
    [
        ([], DECLARED, "it has no resources"),
        (edited(lambda all_: all_.pop(2)), DECLARED, "it does not expire"),
        (edited(lambda all_: (all_.pop(2), all_.pop(1))), None, "it does not expire"),
        (
            edited(lambda all_: all_.append({"urn": f"{CLUSTER}2", "type": reap.CLUSTER})),
            None,
            "it does not expire",
        ),
        (
            edited(lambda all_: all_.append({"urn": f"{URN}aws:Instance::web", "type": "aws:Instance"})),
            None,
            "it has aws:Instance web too, which does not expire",
        ),
        (edited(lambda all_: all_[3]["inputs"].update(disposable=False)), None, "db1 is not disposable in its state"),
        (edited(lambda all_: all_[3].update(protect=True)), None, "db1 is protected"),
        (state(), {"expires": "8h"}, "its stack file does not say that it is disposable"),
        (state(), {**DECLARED, "disposable": False}, "its stack file does not say that it is disposable"),
        (state(), {"disposable": True}, "its stack file does not say that it expires"),
        (state(), {**DECLARED, "expires": "12h"}, "expires 2026-11-30 13:00 UTC"),
    ],
)
def test_a_stack_that_is_left(resources: list[dict[str, Any]], declared: dict[str, Any] | None, why: str) -> None:
    assert reap.judge(resources, declared, NOW) == reap.Verdict(due=False, why=why)


def test_a_stack_whose_time_has_not_come() -> None:
    assert not reap.judge(state(), None, NOW - timedelta(seconds=1)).due


class Project:
    """A directory with stack files, and a `pulumi` that knows their states."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.states: dict[str, Any] = {}
        self.destroyed: list[str] = []
        self.fails: set[str] = set()
        (directory / "Pulumi.yaml").write_text("name: trial\nstackConfigDir: stacks\n")
        (directory / "stacks").mkdir()
        monkeypatch.setattr(reap, "pulumi", self._run)

    def declare(self, stack: str, text: str) -> None:
        (self.directory / "stacks" / f"Pulumi.{stack}.yaml").write_text(text)

    def _run(self, _: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        if arguments == ("stack", "ls", "--json"):
            return subprocess.CompletedProcess([], 0, json.dumps([{"name": name} for name in self.states]), "")
        found = self.states[arguments[-1]]
        code = int(found is None)
        return subprocess.CompletedProcess([], code, json.dumps({"deployment": found}), "no such backend")

    def destroy(self, stack: str) -> "subprocess.CompletedProcess[str]":
        self.destroyed.append(stack)
        if stack in self.fails:
            return subprocess.CompletedProcess([], 1, "", "a reason")
        return subprocess.CompletedProcess([], 0, LEFT_BEHIND, "stack f: " + KILLED)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_one_line_for_each_stack_and_one_that_fails_stops_no_other(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    expired = {"resources": state()}
    project.states = {"a": expired, "b": expired, "c": None, "d": {}, "e": expired, "f": expired}
    project.fails = {"a"}
    project.declare("b", "config:\n  trial:cluster: {expires: 8h}\n")
    project.declare("e", "config: {'trial:cluster': {disposable: true, expires: soon}}\n")
    project.declare("f", "config: {'trial:cluster': {disposable: true, expires: 8h}}\n")
    assert reap.reap(project.directory, project.destroy, now=NOW) == 1
    assert project.destroyed == ["a", "f"]
    assert capsys.readouterr().out.splitlines() == [
        "a  FAILED: expired 2026-11-30 09:00 UTC, and was not destroyed:",
        "a reason",
        "b  left: its stack file does not say that it is disposable",
        "c  FAILED: pulumi stack export failed: no such backend",
        "d  left: it has no resources",
        "e  FAILED: stacks/Pulumi.e.yaml cannot be read: make preview says why",
        f"f  destroyed: expired 2026-11-30 09:00 UTC; {reap.gone(state())}",
        "  left behind: ReplicationSlot tde_db2 (no server runs on /srv/db1/data)",
        "  a killed `up` was making vault:index/mount:Mount tde: check whether it exists",
    ]


def directory(name: str, **more: str) -> dict[str, Any]:
    outputs = {"name": name, "dataDirectory": f"/srv/{name}", **more}
    return {"urn": f"{URN}y::{name}", "type": reap.DIRECTORY, "parent": CLUSTER, "outputs": outputs}


def test_what_went_is_counted_and_an_adopted_server_did_not() -> None:
    assert reap.gone([directory("db1"), directory("db2"), directory("db3", origin="adopted")]) == (
        "with it 2 servers (db1, db2), 2 data directories (/srv/db1, /srv/db2)"
    )
    assert reap.gone(state()) == "with it 1 server (db1), 1 data directory (/srv/db1/data), 1 Vault mount (tde-trial)"
    assert reap.gone([]) == "it had no server"


def test_both_commands_of_a_removal_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"destroy": "left behind: Server db1 (it cannot be reached)\n", "stack": "Stack 'trial' has been removed!\n"}
    run = lambda _, *arguments: subprocess.CompletedProcess([], 0, said[arguments[0]], "")  # noqa: E731
    monkeypatch.setattr(reap, "pulumi", run)
    assert reap.remove(tmp_path, "trial").stdout == said["destroy"] + said["stack"]


def test_nothing_to_do_is_no_failure(project: Project) -> None:
    project.states = {"a": {"resources": state()}}
    assert reap.reap(project.directory, project.destroy, now=NOW - timedelta(hours=1)) == 0
    assert project.destroyed == []
