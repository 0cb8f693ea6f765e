"""One table of behaviour, on every kind of host: create, no-op, drift, change, interruption, secrets, destroy."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.engine.change import edited, of_standby
from tests.engine.counting import counted, is_little
from tests.engine.drift import ROWS, Row, batches, shown_and_repaired
from tests.engine.interruption import interrupted
from tests.engine.leaks import Processes, leaked, watched
from tests.engine.status import WELL, expect, status
from tests.engine.workspace import Output, eventually
from tests.kinds.places import KINDS, Everywhere, declared
from tests.providers.traps import GRANTS, OF_OWNER, RAN
from tests.ssh.booted import Booted, Lab

# Docker's SDK leaves a socket open that could not be connected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket.*family=1:ResourceWarning")
SLOTS = ["tde_db2", "tde_db3"]


@dataclass(frozen=True)
class Raised:
    """A cluster, and what was seen while it was made: a preview, an `up` that was killed during a clone, and a plain `up`."""

    cluster: Everywhere
    before: set[str]
    first: Output
    previewed: set[str]
    killed: Output
    seen: Processes
    sprung: dict[str, set[str]]
    """What traps had run on these machines before, by server: a machine is in several clusters, and its journal stays."""


REFUSED = 5.0
"""Seconds in which a switchover may refuse writes on a busy machine; less than it takes to look up a name in vain."""
CLONE = re.compile("DataDirectory (?!.*db1)")


@pytest.fixture(scope="session")
def three_machines(laboratory: Lab) -> list[Booted]:
    return laboratory.boot("kinds1", "kinds2", "kinds3")


# tests/engine does all this, and more, to local ones in every run.
PARAMETERS = [pytest.param(kind, marks=pytest.mark.soak if kind == "local" else ()) for kind in KINDS]


@pytest.fixture(scope="module", params=PARAMETERS)
def raised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raised]:
    with declared(request.param, request, tmp_path_factory.mktemp("kinds")) as cluster:
        before = cluster.found()
        first = cluster.workspace.preview()
        previewed = cluster.found()
        with watched() as seen:
            killed, _ = interrupted(cluster, ["up"], kill_in_clone, lambda step: bool(CLONE.match(step)))
            eventually(lambda: not cluster.cloning())
            cluster.workspace.unlock()
            cluster.workspace.up_well()
        earlier = sprung(cluster)
        trap(cluster)
        yield Raised(cluster, before, first, previewed, killed, seen, earlier)


def sprung(cluster: Everywhere) -> dict[str, set[str]]:
    """The lines of traps that have run."""
    return {name: {line for line in place.log().splitlines() if RAN in line} for name, place in cluster.places.items()}


def trap(cluster: Everywhere) -> None:
    """Let somebody own the database that the superuser's sessions are in: all below happens among that person's traps."""
    cluster.sql("db1", "CREATE ROLE mallory LOGIN; ALTER DATABASE postgres OWNER TO mallory")
    with cluster.attacker() as owner:
        owner.owns("postgres")
        owner.plants_pg_tde(*OF_OWNER)


def kill_in_clone(cluster: Any, engine: int) -> None:
    """Kill -9 of the command, while a base backup runs."""
    eventually(cluster.cloning)
    os.kill(engine, signal.SIGKILL)


@pytest.fixture
def cluster(raised: Raised) -> Everywhere:
    return raised.cluster


def secrets(cluster: Everywhere) -> dict[str, str]:
    stack = cluster.workspace.stack
    key = cluster.bao.client().secrets.kv.v2.read_secret_version(
        f"{stack}-principal-key", mount_point=f"tde-{stack}", raise_on_deleted_version=True
    )
    files = {name: cluster.host(name).read(cluster.beside(name, "vault-token")) for name in cluster.names}
    pgpass = cluster.host("db2").read(cluster.beside("db2", "pgpass"))
    assert pgpass
    assert all(files.values())
    return {
        "key": key["data"]["data"]["key"],
        "password": pgpass.decode().strip().rpartition(":")[2],
        "VAULT_TOKEN": cluster.bao.token,
        **{f"token of {name}": (token or b"").decode() for name, token in files.items()},
    }


def test_a_preview_makes_nothing(raised: Raised) -> None:
    assert raised.first.code == 0, raised.first.errors
    assert set(raised.first.plan.values()) == {"create"}
    assert raised.previewed == raised.before


def test_an_up_that_was_killed_during_a_clone_is_finished_by_the_next(raised: Raised) -> None:
    cluster = raised.cluster
    assert raised.killed.code == -signal.SIGKILL
    eventually(lambda: cluster.streaming() == SLOTS)
    for name in cluster.names:
        beside = cluster.host(name).listing(cluster.place(name).parent)
        assert not [file for file in beside if file.endswith((".new", ".unfinished")) or "set-aside" in file], beside


def test_an_untouched_cluster_shows_no_change(cluster: Everywhere) -> None:
    cluster.workspace.unchanged()
    drift = cluster.workspace.run("refresh", "--preview-only", "--expect-no-changes")
    assert drift.code == 0, drift.text


def test_a_refresh_asks_each_server_little(cluster: Everywhere) -> None:
    is_little(counted(cluster, lambda: cluster.workspace.run("refresh", "--preview-only", "--expect-no-changes")))


def test_a_table_is_encrypted_on_every_server(cluster: Everywhere) -> None:
    cluster.sql("db1", "CREATE TABLE public.t USING tde_heap AS SELECT 42 AS a")
    for name in cluster.names:
        eventually(lambda name=name: cluster.sql(name, "SELECT to_regclass('public.t') IS NOT NULL") == [(True,)])  # type: ignore[misc]
        assert cluster.sql(name, "SELECT a, public.pg_tde_is_encrypted('public.t') FROM public.t") == [(42, True)]


def test_its_status_is_told(cluster: Everywhere) -> None:
    text = expect(cluster, WELL, "primary db1", "├─ db2   streaming from db1", "└─ db3   streaming from db1", ": opens")
    assert not leaked(secrets(cluster), text + status(cluster, "--json").text)


OFTEN = {
    ("ReplicationRole", "password changed"),
    ("HbaRule", "line removed"),
    ("HostFile (Vault token)", "removed"),
    ("ReplicationSlot", "dropped, with its standby down"),
}
BATCHES = [
    [row for row in ROWS if (row.resource, row.what) in OFTEN],
    # What databases are to enforce is SQL alone, and declared by no cluster here.
    *batches([row for row in ROWS if not row.here and row.resource != "DatabaseEncryption"]),
]


@pytest.mark.parametrize(
    "rows",
    [pytest.param(rows, marks=pytest.mark.soak if at else ()) for at, rows in enumerate(BATCHES)],
    ids=lambda rows: " + ".join(map(str, rows)),
)
def test_drift_is_shown_and_repaired(cluster: Everywhere, rows: list[Row]) -> None:
    shown_and_repaired(cluster, rows)
    eventually(lambda: cluster.streaming() == SLOTS)


def started(cluster: Everywhere) -> dict[str, Any]:
    """When each server was started."""
    return {name: cluster.sql(name, "SELECT pg_postmaster_start_time()") for name in cluster.names}


@pytest.mark.soak
def test_changes_touch_what_they_name(cluster: Everywhere) -> None:
    """A standby goes, and a setting that is reloaded and one that needs a restart; then it comes again, with a new password."""
    workspace, before, whole = cluster.workspace, started(cluster), cluster.workspace.cluster
    loud = whole["servers"]["db1"]["settings"] | {"work_mem": "7MB", "shared_buffers": "100MB"}
    changed = edited(whole, lambda c: c["servers"]["db1"].update(settings=loud))
    workspace.write(edited(changed, lambda c: c["servers"].pop("db3")))
    preview = workspace.preview()
    gone = of_standby("db3", "delete") | dict.fromkeys(cluster.places["db3"].makes, "delete")
    assert preview.plan == {"Server db1": "update", **gone}, preview.changes
    assert "server db1 will be restarted" in preview.text
    workspace.up_well()
    cluster.names.remove("db3")
    workspace.unchanged()
    assert not [one for one in cluster.places["db3"].found() if f"{workspace.stack}-db3" in one or "/db3/" in one]
    in_force = "SELECT current_setting('work_mem'), current_setting('shared_buffers')"
    assert cluster.sql("db1", in_force, "template1") == [("7MB", "100MB")]
    after = started(cluster)
    assert [name for name in cluster.names if after[name] != before[name]] == ["db1"]
    password = secrets(cluster)["password"]
    workspace.write(edited(changed, lambda c: c.update(replication={"passwordVersion": 2})))
    with watched() as seen:
        workspace.up_well()
    cluster.names.append("db3")
    workspace.unchanged()
    known = secrets(cluster)
    assert known["password"] != password
    assert leaked(known | {"former password": password}, b"\n".join(seen.arguments)) == set()
    # Those that come in again do so with the new one.
    cluster.sql("db1", "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
    eventually(lambda: cluster.streaming() == SLOTS)
    now = started(cluster)
    assert [name for name in after if now[name] != after[name]] == []


def test_no_secret_is_in_a_state_an_argument_or_a_log(raised: Raised) -> None:
    cluster, known = raised.cluster, secrets(raised.cluster)
    assert any(b"basebackup" in arguments for arguments in raised.seen.arguments)
    assert leaked(known, b"\n".join(raised.seen.arguments)) == set()
    state = cluster.workspace.state()
    assert "ciphertext" in state
    assert leaked(known, state) == set()
    for name, place in cluster.places.items():
        assert leaked(known, place.log()) == set(), name
    cluster.sql("db1", "SELECT 'as loud as it was set'")
    assert "as loud as it was set" in cluster.places["db1"].log()


MACHINE = {"ssh": "192.0.2.1"}
IMPOSSIBLE: list[tuple[str, str, Callable[[dict[str, Any]], object], str]] = [
    (
        "local",
        "a standby elsewhere",
        lambda c: c["servers"]["db3"].update(host=MACHINE),
        "reached on this machine's loopback",
    ),
    (
        "docker",
        "a standby elsewhere",
        lambda c: c["servers"]["db3"].update(host=MACHINE),
        "reached on its docker network",
    ),
    ("docker", "adopted", lambda c: c["servers"]["db1"].update(adopt=True), "the stack always makes its containers"),
    ("docker", "Vault on its loopback", lambda c: c.pop("vault"), "addressFromServers: missing"),
    ("ssh", "Vault on its loopback", lambda c: c.pop("vault"), "addressFromServers: missing"),
    ("ssh", "jump hosts", lambda c: c["servers"]["db2"]["host"].update(jump=["a", "b"]), "goes through one jump host"),
    ("ssh", "a login that is not let in", lambda c: c["servers"]["db2"]["host"].update(user="nobody"), "nobody"),
    ("mixed", "no address", lambda c: c["servers"]["db2"].pop("address"), "servers.db2.address: missing"),
]


def test_what_a_kind_cannot_do_is_told_at_preview(cluster: Everywhere, request: pytest.FixtureRequest) -> None:
    workspace, before = cluster.workspace, cluster.workspace.cluster
    kind = request.node.callspec.params["raised"]
    try:
        for _, what, edit, says in [row for row in IMPOSSIBLE if row[0] == kind]:
            workspace.write(edited(before, edit))
            done = workspace.preview()
            assert done.code != 0, what
            assert says in done.text, (what, done.text)
    finally:
        workspace.write(before)
    workspace.unchanged()


def test_machines_renew_their_tokens(cluster: Everywhere, request: pytest.FixtureRequest) -> None:
    """By ssh: the timer waits for its time, and what it starts, as the server's account, has Vault renew the token."""
    if cluster.workspace.cluster["vault"].get("renewal") != "timer":
        assert not any("token-renewal" in one for place in cluster.places.values() for one in place.makes)
        return
    stack, bao = cluster.workspace.stack, cluster.bao.client()
    machine = request.getfixturevalue("three_machines")[1]
    [token] = machine.root('cat /var/lib/postgresql/18/tde-"$1"-db2/*-token', stack).split()
    lookup = {"token": token}
    before = bao.write_data("auth/token/lookup", data=lookup)["data"]
    assert "tde-" in machine.root('systemctl list-timers --no-legend "tde-$1-db2-token.timer"', stack)
    time.sleep(1.1)  # Vault counts whole seconds
    machine.root('systemctl start "tde-$1-db2-token.service"', stack)
    after = bao.write_data("auth/token/lookup", data=lookup)["data"]
    assert after["ttl"] >= before["ttl"]
    assert after["last_renewal_time"] > (before.get("last_renewal_time") or 0)
    assert token not in machine.root("journalctl --no-pager -o cat; cat /etc/systemd/system/tde-*")


def test_another_server_becomes_the_primary_and_the_first_one_again(cluster: Everywhere) -> None:
    workspace = cluster.workspace
    cluster.sql("db1", "CREATE TABLE public.turns (a text) USING tde_heap")
    for number, (former, name) in enumerate([("db1", "db3"), ("db3", "db1")], 1):
        workspace.write(edited(workspace.cluster, lambda c, name=name: c.update(primary=name)))  # type: ignore[misc]
        preview = workspace.preview()
        assert f"{former}: primary → standby of {name}, without a new clone; writes are refused" in preview.text, (
            preview.errors
        )
        assert f"{name}: standby → primary; it is " in preview.text
        assert "a new base backup" not in preview.text
        told = re.search(r"no writes were accepted for ([\d.]+) s", workspace.up_well().text)
        assert told
        assert float(told[1]) < REFUSED, "a container's name that is gone is looked up for ten seconds"
        cluster.sql(name, "INSERT INTO public.turns VALUES ('taken')")
        others = [other for other in cluster.names if other != name]
        active = "SELECT slot_name FROM pg_replication_slots WHERE active ORDER BY 1"
        eventually(lambda: cluster.sql(name, active) == [(f"tde_{other}",) for other in others])  # noqa: B023
        for other in others:
            assert cluster.sql(other, "SELECT pg_is_in_recovery()") == [(True,)]
            eventually(lambda: cluster.sql(other, "SELECT count(*) FROM public.turns") == [(number,)])  # noqa: B023
            assert cluster.sql(other, "SELECT slot_name FROM pg_replication_slots") == []
        workspace.unchanged()


def test_nothing_of_what_an_owner_planted_has_run(raised: Raised) -> None:
    cluster = raised.cluster
    assert sprung(cluster) == raised.sprung
    assert cluster.sql("db1", "SELECT rolname FROM pg_roles WHERE rolsuper") == [("postgres",)]
    # A careless session runs it on every server.
    for name in cluster.names:
        path = "-c search_path=evil,public"
        with cluster.host(name).connect(cluster.place(name), "postgres", options=path) as connection:
            connection.execute("SELECT unnest(ARRAY['a'])")
        eventually(lambda name=name: sprung(cluster)[name] > raised.sprung[name])  # type: ignore[misc]
    assert cluster.sql("db1", "SELECT rolname FROM pg_roles WHERE rolsuper ORDER BY 1") == [("mallory",), ("postgres",)]
    with cluster.attacker() as owner:
        owner.does(*GRANTS)  # `destroy` has to drop the role all the same


def test_destroy_leaves_nothing(raised: Raised) -> None:
    workspace = raised.cluster.workspace
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert raised.cluster.found() == raised.before
    mounts = raised.cluster.bao.client().sys.list_mounted_secrets_engines()["data"]
    assert f"tde-{workspace.stack}/" not in mounts
