"""Another server becomes the primary: one line of the stack file, on the real engine, while somebody writes."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.engine.cluster import Cluster, base_directory
from tests.engine.interruption import kill_engine, kill_provider, strays_gone
from tests.engine.workspace import Output, Workspace, eventually
from tests.engine.writer import Writer, writing
from tests.openbao import OpenBao

SERVERS = ["db1", "db2", "db3"]


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("switch"), "switch", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    workspace.init()
    workspace.up_well()
    made.sql("db1", "CREATE TABLE written (number int PRIMARY KEY) USING tde_heap")
    yield made
    done = workspace.destroy()
    assert done.code == 0, done.text
    shutil.rmtree(base)


def primary(cluster: Cluster) -> str:
    """The one that takes writes."""
    [name] = [name for name in SERVERS if cluster.running(name) and not in_recovery(cluster, name)]
    return name


def in_recovery(cluster: Cluster, name: str) -> bool:
    return bool(cluster.sql(name, "SELECT pg_is_in_recovery()")[0][0])


def declare(cluster: Cluster, name: str) -> None:
    """Name another primary."""
    cluster.workspace.write({**cluster.workspace.cluster, "primary": name})


def whole(cluster: Cluster, name: str) -> None:
    """`name` is the primary, and the others stream from it by slots that are nowhere else."""
    assert primary(cluster) == name
    others = [other for other in SERVERS if other != name]
    query = "SELECT slot_name FROM pg_replication_slots WHERE active ORDER BY 1"
    eventually(lambda: cluster.sql(name, query) == [(f"tde_{other}",) for other in others])
    for other in others:
        assert cluster.sql(other, "SELECT slot_name FROM pg_replication_slots") == []
    cluster.workspace.unchanged()


def nothing_lost(writer: Writer, name: str) -> None:
    assert writer.commits
    assert writer.lost(name) == set()
    assert writer.torn() == []
    for other in SERVERS:
        if other != name:
            eventually(lambda other=other: writer.lost(other) == set())  # type: ignore[misc]


def may_make_keys(cluster: Cluster, name: str) -> bool:
    """With the token that the server has."""
    token, path = cluster.file(name, "vault-token").read_text(), f"tde-{cluster.workspace.stack}/data/another"
    held = cluster.bao.client().write("sys/capabilities", token=token, paths=[path])["data"][path]
    return "create" in held


def test_a_switchover_is_one_update_and_clones_nothing(cluster: Cluster) -> None:
    workspace = cluster.workspace
    made = {name: cluster.sql(name, "SELECT pg_postmaster_start_time()") for name in ("db2", "db3")}
    before = primary(cluster)
    assert before == "db1"
    cluster.sql(before, "TRUNCATE written")
    declare(cluster, "db2")
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan["Topology switch"] == "update"
    assert 'primary : "db1" => "db2"' in preview.words
    writes = "writes are refused for about 1 s, while it stops and db2 is promoted; its clients must reconnect"
    assert told(preview) == [
        f"db1: primary → standby of db2, without a new clone; {writes}",
        "db2: standby → primary; it is … bytes behind",
        "db3: follows db2 instead of db1, by a reload",
    ]
    assert {step for what, step in preview.plan.items() if what.startswith(("DataDirectory", "Server"))} == {"update"}
    in_vault = {what: step for what, step in preview.plan.items() if what.startswith(("Policy", "Token", "HostFile"))}
    assert in_vault == {
        "Policy db1-policy": "update",
        "Policy db2-policy": "update",
        "HostFile db1-pgpass": "create",
        "HostFile db2-pgpass": "delete",
    }
    with writing(cluster, SERVERS) as writer:
        eventually(lambda: len(writer.commits) > 20)
        workspace.up_well()
        count = len(writer.commits)
        eventually(lambda: len(writer.commits) > count + 20)
    assert {commit.server for commit in writer.commits} == {"db1", "db2"}
    nothing_lost(writer, "db2")
    assert {name: cluster.sql(name, "SELECT pg_postmaster_start_time()") for name in ("db2", "db3")} == made
    assert {name: may_make_keys(cluster, name) for name in cluster.names} == {"db1": False, "db2": True, "db3": False}
    whole(cluster, "db2")


def test_clients_go_on_by_the_connection_string_that_they_have(cluster: Cluster) -> None:
    """With psycopg all the time, and with libpq's own psql afterwards."""
    workspace, before = cluster.workspace, primary(cluster)
    after = "db2" if before == "db1" else "db1"
    cluster.sql(
        before, "DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN PASSWORD 'of app'; GRANT INSERT ON written TO app"
    )
    cluster.sql(before, "TRUNCATE written")

    def dsn(name: str) -> str:
        return make_conninfo(workspace.run("stack", "output", name).text.strip(), user="app", password="of app")

    known, stop, answers = dsn("readWriteDsn"), threading.Event(), list[int]()

    def write() -> None:
        number = 0
        while not stop.wait(0.005):
            with suppress(psycopg.Error), psycopg.connect(known, autocommit=True) as session:
                while not stop.wait(0.005):
                    number += 1
                    session.execute("INSERT INTO written VALUES (%s)", [number])
                    answers.append(session.info.port)

    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(write)
        try:
            eventually(lambda: len(answers) > 20)
            declare(cluster, after)
            workspace.up_well()
            eventually(lambda: answers.count(cluster.ports[after]) > 20)
        finally:
            stop.set()
        client.result(timeout=30)
    assert set(answers) == {cluster.ports[before], cluster.ports[after]}
    assert dsn("readWriteDsn") == known
    for name, recovering in {"readWriteDsn": "f", "readOnlyDsn": "t"}.items():
        command = [str(cluster.binaries / "psql"), "-XAt", dsn(name), "-c", "SELECT pg_is_in_recovery()"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == recovering
    whole(cluster, after)


def told(preview: Output) -> list[str]:
    """What each server goes through."""
    lines = {re.sub(r"\d+ bytes", "… bytes", line.strip()) for line in preview.text.splitlines()}
    return sorted(line for line in lines if re.match(r"db\d: ", line))


STEPS = {
    "before": r"gets its pg_hba rules and slots",
    "checkpoint": r"writes a checkpoint",
    "stop": r"db\d stops",
    "promotion": r"is promoted",
    "after": r"is the primary: no writes",
}
"""By what its row says."""


def kill_old(cluster: Cluster, _: int) -> None:
    _kill(cluster, OLD[0])


def kill_new(cluster: Cluster, _: int) -> None:
    _kill(cluster, NEW[0])


OLD, NEW = [""], [""]


def _kill(cluster: Cluster, name: str) -> None:
    if cluster.running(name):
        cluster.kill(name)


KILLS = [kill_engine, kill_provider, kill_old, kill_new]
SAMPLE = {
    ("stop", kill_engine),
    ("promotion", kill_provider),
    ("stop", kill_old),
    ("stop", kill_new),
    ("promotion", kill_new),
}
TRIALS = [
    pytest.param(step, kill, id=f"{kill.__name__} at {step}", marks=() if (step, kill) in SAMPLE else pytest.mark.soak)
    for step in STEPS
    for kill in KILLS
]


def interrupted(cluster: Cluster, pattern: str, kill: Callable[[Cluster, int], object]) -> tuple[Output, bool]:
    with cluster.workspace.start("up", "--yes", "--skip-preview") as process:
        assert process.stdout
        lines, done = [], False
        for line in process.stdout:
            lines.append(line)
            if not done and "Topology" in line and re.search(pattern, line):
                done = True
                kill(cluster, process.pid)
        process.wait(timeout=120)
    strays_gone(cluster)
    return Output(process.returncode, "".join(lines)), done


@pytest.mark.parametrize(("step", "kill"), TRIALS)
def test_killed_at_any_step_it_goes_on_and_loses_nothing(
    cluster: Cluster, step: str, kill: Callable[[Cluster, int], object]
) -> None:
    workspace = cluster.workspace
    OLD[0] = primary(cluster)
    NEW[0] = "db2" if OLD[0] == "db1" else "db1"
    cluster.sql(OLD[0], "TRUNCATE written")
    declare(cluster, NEW[0])
    with writing(cluster, SERVERS) as writer:
        eventually(lambda: len(writer.commits) > 20)
        output, done = interrupted(cluster, STEPS[step], kill)
        assert done, output.text
        workspace.unlock()
        for name in (OLD[0], NEW[0]):  # as a supervisor would
            if not cluster.running(name):
                cluster.start(name)
        again = workspace.up()
        assert again.code == 0, again.errors
    nothing_lost(writer, NEW[0])
    whole(cluster, NEW[0])


def test_interrupted_it_can_go_back(cluster: Cluster) -> None:
    workspace = cluster.workspace
    OLD[0] = primary(cluster)
    NEW[0] = "db2" if OLD[0] == "db1" else "db1"
    declare(cluster, NEW[0])
    _, done = interrupted(cluster, STEPS["stop"], kill_engine)
    assert done
    workspace.unlock()
    if cluster.running(NEW[0]) and in_recovery(cluster, NEW[0]):
        declare(cluster, OLD[0])
        back = OLD[0]
    else:
        back = NEW[0]
    workspace.up_well()
    whole(cluster, back)


def test_it_is_taken_away_in_the_middle_of_a_switchover(cluster: Cluster) -> None:
    """Last: it is gone then."""
    workspace, before = cluster.workspace, primary(cluster)
    declare(cluster, "db2" if before == "db1" else "db1")
    _, done = interrupted(cluster, STEPS["stop"], kill_engine)
    assert done
    workspace.unlock()
    destroyed = workspace.destroy()
    assert destroyed.code == 0, destroyed.errors
    assert [name for name in SERVERS if cluster.running(name) or cluster.data(name).exists()] == []
    declare(cluster, before)
