"""A server: started, set, restarted, promoted, killed, and taken away."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import pytest
from psycopg.conninfo import conninfo_to_dict

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.hosts import base
from tde_replication.postgres import parameters, starting
from tde_replication.postgres.server import Server
from tde_replication.postgres.session import Session
from tde_replication.progress import reported_to
from tde_replication.records import Cost
from tde_replication.waiting import until
from tests.processes import lives
from tests.providers.servers import Node, Servers, cost_of, text_of


@pytest.fixture(scope="module")
def node(servers: Servers) -> Iterator[Node]:
    """A server of this module's own, that may be stopped and killed."""
    made = servers.primary("db3", work_mem="8MB")
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that dies at once leaves no trace to wait for but its log."""
    monkeypatch.setattr(starting, "LAUNCH_DEADLINE", 3600.0)


@pytest.fixture
def running(node: Node) -> Node:
    """As declared, whatever the test before left."""
    live = node.server.read()
    assert live is not None
    if node.server.changed(live):
        node.server.update(live)
    return node


def declared(node: Node, *without: str, **settings: str) -> Server:
    """The same server with other settings."""
    kept = {name: value for name, value in node.server.settings.items() if name not in without}
    return node.server.replace(settings=kept | {name.replace("__", "."): value for name, value in settings.items()})


def live(server: Server) -> Server:
    found = server.read()
    assert found is not None
    return found


def drift(server: Server) -> set[str]:
    return server.changed(live(server))


def pid(node: Node) -> int:
    found = node.host.postmaster(node.data)
    assert isinstance(found, base.Postmaster)
    return found.pid


def test_an_untouched_server_is_as_declared(running: Node) -> None:
    assert live(running.server) == running.server
    assert running.server.create() == running.server


def test_create_again_restarts_nothing(running: Node) -> None:
    before = pid(running)
    running.server.create()
    assert pid(running) == before


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("work_mem", "12MB", "12MB"),
        ("wal_compression", "on", "on"),
        ("timezone", "utc", "utc"),
        ("log_timezone", "utc", "utc"),
        ("wal_buffers", "-1", "-1"),
        ("wal_buffers", "100", "100"),
        ("huge_pages", "no", "no"),
        ("shared_buffers", "1024", "1024"),
        ("fsync", "of", "of"),
        ("synchronous_commit", "true", "true"),
        ("client_min_messages", "info", "info"),
        ("default_text_search_config", "english", "english"),
        ("work_mem", "100kB", "100kB"),
        ("shared_buffers", "8MB", "8MB"),
        ("temp_buffers", "1000kB", "1000kB"),
        ("max_slot_wal_keep_size", "1500kB", "1500kB"),
        ("timezone", "UTC", "UTC"),
        ("timezone", "Europe/Vienna", "Europe/Vienna"),
        ("datestyle", "ISO, DMY", "ISO, DMY"),
        ("jit", "false", "false"),
        ("jit", "OF", "OF"),
        ("wal_level", "Replica", "Replica"),
        ("log_statement", "DDL", "DDL"),
        ("checkpoint_timeout", "10min", "10min"),
        ("log_min_duration_statement", "-1", "-1"),
        ("vacuum_cost_delay", "0.5", "0.5"),
        ("vacuum_cost_delay", "500us", "500us"),
        ("log_line_prefix", "%m ", "%m "),
        ("DateStyle", "ISO,DMY", "ISO,DMY"),
        ("Search_Path", "a, b", "a, b"),
        ("random_page_cost", "1.10", "1.10"),
        ("archive_command", "cp '%p' \"/ar chive/%f\" \\ 100%", "cp '%p' \"/ar chive/%f\" \\ 100%"),
        ("search_path", '"$user", "Mixed Case", public', '"$user", "Mixed Case", public'),
        ("cluster_name", "it's", "it's"),
        ("app.setting", "ünï\u2028x", "ünï\u2028x"),
        ("synchronous_standby_names", 'ANY 1 ("db-2", db3)', 'ANY 1 ("db-2", db3)'),
    ],
)
def test_a_setting_set_while_it_runs_reads_as_declared(running: Node, name: str, value: str, shown: str) -> None:
    wanted = declared(running, **{name.replace(".", "__"): value})
    before = live(running.server)
    wanted.update(before)
    try:
        found = live(wanted)
        assert found.settings[name] == shown
        assert wanted.changed(found) == set()
    finally:
        running.server.update(wanted)
    assert drift(running.server) == set()


def test_a_list_means_the_same_set_by_sql_and_in_the_file(running: Node) -> None:
    path = '"$user", "Mixed Case", public'
    wanted = declared(running, search_path=path)
    wanted.update(live(running.server))
    by_sql = running.others_see("search_path")
    running.stop()
    running.file("postgresql.auto.conf").write_text("")
    wanted.update(wanted.replace(running=False, settings={}))
    assert running.others_see("search_path") == by_sql == path
    running.server.update(wanted)


@pytest.mark.parametrize(
    ("behind_our_back", "name", "shown"),
    [
        ("ALTER SYSTEM SET work_mem = '1MB'", "work_mem", "1024kB"),
        ("ALTER SYSTEM RESET work_mem", "work_mem", "4096kB"),
        ("ALTER SYSTEM SET cluster_name = 'other'", "cluster_name", None),
        ("ALTER SYSTEM RESET unix_socket_directories", "unix_socket_directories", None),
    ],
)
def test_a_setting_changed_by_hand_is_shown_and_put_back(
    running: Node, behind_our_back: str, name: str, shown: str | None
) -> None:
    """`shown`: None where it waits for a restart; then setting it back needs none."""
    before = pid(running)
    running.rows(behind_our_back)
    with running.host.connect(running.data, "postgres") as session:
        parameters.reload_configuration(Session(session, "test"))
    found = live(running.server)
    if shown:
        assert running.server.changed(found) == {"settings"}
        assert found.settings[name] == shown
    else:
        assert running.server.changed(found) == {"pending_restart"}
        assert found.pending_restart == [name]
    assert cost_of(running.server, found) == Cost(kind="reload", server=running.server.name)
    running.server.update(found)
    assert drift(running.server) == set()
    assert pid(running) == before


def test_a_password_that_somebody_wrote_into_a_connection_string_is_not_shown(running: Node) -> None:
    """As pg_basebackup --write-recovery-conf does."""
    wanted = declared(running, primary_conninfo="host=192.0.2.1 user=a")
    wanted.update(live(running.server))
    before = live(wanted)
    running.rows("ALTER SYSTEM SET primary_conninfo = 'host=192.0.2.2 user=b password=hunter2'")
    with running.host.connect(running.data, "postgres") as session:
        parameters.reload_configuration(Session(session, "test"))
    found = live(wanted)
    assert wanted.changed(before) == set()
    assert wanted.changed(found) == {"settings"}
    assert "hunter2" not in str(found)
    shown = conninfo_to_dict(found.settings["primary_conninfo"])
    assert shown == {"host": "192.0.2.2", "user": "b", "password": "(hidden)"}
    wanted.update(found)
    assert wanted.changed(live(wanted)) == set()
    running.server.update(wanted)


def test_a_list_that_can_only_be_set_back_in_another_spelling_is_told_to_restart(running: Node) -> None:
    """ALTER SYSTEM writes "/tmp" where the file had /tmp."""
    running.stop()
    file = running.file("postgresql.auto.conf")
    file.write_text(file.read_text().replace("""'"/tmp"'""", "'/tmp'"))
    starting.start(running.server, "db3", running.server.binaries)
    assert running.value("SHOW unix_socket_directories") == "/tmp"
    before = pid(running)
    running.rows("ALTER SYSTEM RESET unix_socket_directories")
    with running.host.connect(running.data, "postgres") as session:
        parameters.reload_configuration(Session(session, "test"))
    found = live(running.server)
    told = "server db3 will be restarted: unix_socket_directories can only change at start"
    assert text_of(cost_of(running.server, found)) == told
    made = running.server.update(found)
    assert drift(running.server) == set()
    assert pid(running) != before
    seconds = made.restart_seconds
    assert seconds
    assert made.changed(running.server) == set(), "how long it took is no difference"
    cost = cost_of(made, found.replace(settings={**found.settings, "max_connections": "21"}))
    assert cost
    assert cost.seconds == seconds
    assert re.search(r"; its last restart took \d+ s$", cost.text), cost


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("SET work_mem = '1MB'", {"pending_reload": ["work_mem"]}),
        ("RESET work_mem", {"pending_reload": ["work_mem"]}),
        ("SET shared_buffers = '9MB'", {"pending_restart": ["shared_buffers"]}),
    ],
)
def test_a_setting_changed_by_hand_and_not_loaded_is_shown_and_put_back(
    running: Node, change: str, shown: dict[str, list[str]]
) -> None:
    before = running.file("postgresql.auto.conf").read_text()
    running.rows(f"ALTER SYSTEM {change}")
    found = live(running.server)
    assert found == running.server.replace(**shown)
    running.server.update(found)
    assert drift(running.server) == set()
    assert sorted(running.file("postgresql.auto.conf").read_text().splitlines()) == sorted(before.splitlines())


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("ALTER SYSTEM SET commit_delay = 5", "ALTER SYSTEM RESET commit_delay"),
        ("ALTER ROLE postgres SET work_mem = '1MB'", "ALTER ROLE postgres RESET work_mem"),
        ("ALTER DATABASE postgres SET work_mem = '1MB'", "ALTER DATABASE postgres RESET work_mem"),
        ("ALTER SYSTEM SET work_mem = 8192", "ALTER SYSTEM SET work_mem = '8MB'"),
    ],
)
def test_what_is_not_declared_or_means_the_same_is_no_drift(running: Node, change: str, back: str) -> None:
    running.rows(change)
    assert drift(running.server) == set()
    running.rows(back)


def test_a_value_of_our_own_session_hides_nothing(running: Node) -> None:
    running.rows("ALTER SYSTEM SET work_mem = '1MB'")
    running.rows("ALTER ROLE postgres SET work_mem = '8MB'")
    with running.host.connect(running.data, "postgres") as session:
        parameters.reload_configuration(Session(session, "test"))
    found = live(running.server)
    assert found == running.server.replace(settings=running.server.settings | {"work_mem": "1MB"})
    running.server.update(found)
    running.rows("ALTER ROLE postgres RESET work_mem")
    assert drift(running.server) == set()


def start_with(node: Node, option: str) -> None:
    """Stop it, and start it with an option on its command line."""
    node.stop()
    log = str(Path(node.data).parent / "postgresql.log")
    start = [str(PurePosixPath(node.server.binaries) / "pg_ctl"), "start", "-w", "-D", str(node.data), "-l", log]
    node.host.run([*start, "-o", option], deadline=30)


def test_a_setting_on_the_command_line_goes_with_a_restart(running: Node) -> None:
    start_with(running, "-c work_mem=1MB -c shared_buffers=8192kB")
    found = live(running.server)
    assert found.settings["work_mem"] == "1024kB"
    assert found.pending_restart == ["work_mem"]
    assert "will be restarted: work_mem" in text_of(cost_of(running.server, found))
    running.server.update(found)
    assert running.value("SHOW work_mem") == "8MB"
    assert drift(running.server) == set()


def test_a_setting_that_always_comes_by_the_command_line_is_told(
    running: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("tde_replication.postgres.server.start", lambda *_: start_with(running, "-c work_mem=1MB"))
        start_with(running, "-c work_mem=1MB")
        with pytest.raises(UserError, match="is always started with another work_mem on its command line"):
            running.server.update(live(running.server))
    running.server.update(live(running.server))
    assert drift(running.server) == set()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("work_mem", "64", "64MB"),
        ("work_mem", "1MB", "1500kB"),
        ("log_line_prefix", "%m", "%m "),
    ],
)
def test_a_correction_in_the_stack_file_is_a_change(running: Node, name: str, before: str, after: str) -> None:
    wrong, right = declared(running, **{name: before}), declared(running, **{name: after})
    wrong.update(live(running.server))
    assert right.changed(live(wrong)) == right.changed(wrong) == {"settings"}
    right.update(wrong)
    assert drift(right) == set()
    assert drift(wrong) == {"settings"}
    running.server.update(right)


def test_a_setting_that_needs_a_restart_gets_one(running: Node) -> None:
    before = pid(running)
    wanted = declared(running, max_connections="25")
    wanted.update(live(running.server))
    assert pid(running) != before
    assert running.value("SHOW max_connections") == "25"
    assert drift(wanted) == set()
    running.server.update(wanted)
    assert running.value("SHOW max_connections") == "20"


def test_a_setting_no_longer_declared_goes_back_to_its_default(running: Node) -> None:
    wanted = declared(running, work_mem="9MB", commit_siblings="7")
    wanted.update(live(running.server))
    running.server.update(live(wanted))
    assert running.value("SHOW commit_siblings") == "5"
    assert "commit_siblings" not in running.file("postgresql.auto.conf").read_text()


def test_a_setting_no_longer_declared_that_needs_a_restart_gets_one(running: Node) -> None:
    wanted = declared(running, max_prepared_transactions="3")
    wanted.update(live(running.server))
    running.server.update(live(wanted))
    assert running.value("SHOW max_prepared_transactions") == "0"


def test_where_restarts_are_refused_it_says_for_what_and_changes_nothing(running: Node) -> None:
    before = pid(running)
    wanted = declared(running, max_connections="25").replace(restart="refused")
    with pytest.raises(Conflict, match="must be restarted for max_connections, and the stack says restart: refused"):
        wanted.update(live(running.server))
    assert pid(running) == before
    found = live(wanted)
    assert wanted.changed(found) == {"settings"}
    assert drift(running.server) == set()
    assert found.settings["max_connections"] == "20"
    allowed = wanted.replace(restart="allowed")
    allowed.update(found)
    assert drift(allowed) == set()
    running.server.update(allowed)


@pytest.fixture
def somebodys(running: Node) -> Iterator[Node]:
    """With a value that somebody set."""
    running.rows("ALTER SYSTEM SET wal_keep_size = '32MB'")
    running.rows("SELECT pg_reload_conf()")
    yield running
    running.rows("ALTER SYSTEM RESET wal_keep_size")


def set_by_hand(node: Node) -> list[str]:
    return sorted(node.file("postgresql.auto.conf").read_text().replace('"', "").splitlines())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {"max_connections": "25"},
            "must be restarted for max_connections, and .* restart: refused: nothing is changed",
        ),
        ({"work_mem": "lots"}, 'invalid value for parameter "work_mem"'),
    ],
)
def test_an_adoption_that_fails_leaves_the_settings_as_they_were(
    somebodys: Node, wrong: dict[str, str], told: str
) -> None:
    """`create` keeps nothing of it: a later one would take our values for theirs, and give those back."""
    before = set_by_hand(somebodys)
    adopting = declared(somebodys, wal_keep_size="64MB", **wrong).replace(ours=False, restart="refused")
    with pytest.raises(UserError, match=told):
        adopting.create()
    assert set_by_hand(somebodys) == before
    made = declared(somebodys, wal_keep_size="64MB").replace(ours=False, restart="refused").create()
    assert made.found["wal_keep_size"] == "32MB"
    made.delete()
    assert set_by_hand(somebodys) == before


def test_an_adopted_server_keeps_its_libraries(running: Node) -> None:
    adopting = declared(running, shared_preload_libraries="").replace(ours=False, restart="refused")
    found = live(adopting).replace(settings=adopting.settings | {"shared_preload_libraries": "auto_explain"})
    assert "loads auto_explain at its start, and the stack file does not" in str(adopting.refusal_of_adoption(found))
    assert adopting.refusal_of_adoption(live(adopting)) is None


def test_a_value_that_postgresql_refuses_is_told_in_one_line(running: Node) -> None:
    before = live(running.server)
    with pytest.raises(UserError, match=r"^server db3 would not start with its new work_mem: invalid value") as told:
        declared(running, work_mem="lots").update(before)
    assert "\n" not in str(told.value)
    assert drift(running.server) == set()


def test_a_parameter_that_does_not_exist_is_told(running: Node) -> None:
    with pytest.raises(UserError, match="unrecognized configuration parameter"):
        declared(running, no_such_thing="1").update(live(running.server))


def test_a_stopped_server_is_shown_and_started(running: Node) -> None:
    running.stop()
    found = live(running.server)
    assert running.server.changed(found) == {"running"}
    running.server.update(found)
    assert drift(running.server) == set()


def test_a_standby_that_will_take_no_connections_is_not_waited_for(running: Node) -> None:
    """PostgreSQL says so in postmaster.pid, in whatever language it writes its log."""
    signal, server = running.data / "standby.signal", running.server
    running.stop()
    auto = running.host.read(running.data / "postgresql.auto.conf") or b""
    try:
        running.host.write(signal, b"", mode=0o600)
        running.host.write(running.data / "postgresql.auto.conf", auto + b"hot_standby = off\n", mode=0o600)
        with pytest.raises(
            UserError, match=r"takes no connections, because its hot_standby is off: .* Set hot_standby to on"
        ):
            starting.start(server, server.name, server.binaries)
        assert running.host.postmaster(running.data), "it was not left running"
    finally:
        running.stop()
        running.host.remove(signal)
        running.host.write(running.data / "postgresql.auto.conf", auto, mode=0o600)
    server.create()


def test_a_killed_server_is_started_with_its_settings(running: Node) -> None:
    """Its postmaster.pid is stale, and its children may be there a moment longer."""
    process = psutil.Process(pid(running))
    process.kill()
    assert until(lambda: not lives(process), seconds=10)
    assert running.file("postmaster.pid").exists()
    assert drift(running.server) == {"running"}
    running.server.update(live(running.server))
    assert drift(running.server) == set()
    assert running.value("SELECT 1") == 1


def test_a_stopped_server_gets_its_new_settings_before_it_starts(running: Node) -> None:
    running.stop()
    wanted = declared(running, max_connections="25")
    wanted.update(live(running.server))
    assert running.value("SHOW max_connections") == "25"
    running.server.update(wanted)


def test_a_file_in_another_encoding_is_kept_as_it_is(running: Node) -> None:
    running.stop()
    file = running.file("postgresql.auto.conf")
    file.write_bytes(file.read_bytes() + b"# caf\xe9\n")
    running.server.create()
    assert b"# caf\xe9\n" in file.read_bytes()


def test_a_server_that_dies_says_why(running: Node) -> None:
    running.stop()
    broken = declared(running, max_connections="-5")
    with pytest.raises(UserError) as told:
        broken.update(live(running.server))
    assert re.match(r'server db3 did not start: .*"max_connections"', str(told.value))
    assert "\n" not in str(told.value)
    assert drift(running.server) == {"running"}
    running.server.update(live(running.server).replace(settings=broken.settings))
    assert drift(running.server) == set()


def test_a_server_that_lacks_a_library_says_why(running: Node) -> None:
    running.stop()
    broken = declared(running, shared_preload_libraries="no_such_library")
    with pytest.raises(UserError, match='did not start: could not access file "no_such_library"'):
        broken.update(live(running.server))
    running.server.update(live(running.server).replace(settings=broken.settings))


def test_a_port_that_is_taken_says_so(running: Node, primary: Node) -> None:
    running.stop()
    broken = declared(running, port=str(primary.port))
    with pytest.raises(UserError, match=r"server db3 did not start: .*(lock file|could not create)"):
        broken.update(live(running.server))
    running.server.update(live(running.server).replace(settings=broken.settings))
    assert drift(running.server) == set()


def test_a_server_that_nobody_may_enter_is_told_with_the_reason(running: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own pg_hba.conf keeps us out."""
    monkeypatch.setattr(starting, "REFUSAL_DEADLINE", 0.3)
    hba = running.file("pg_hba.conf")
    original = hba.read_bytes()
    running.stop()
    hba.write_text("local all all reject\n")
    try:
        with pytest.raises(UserError) as told:
            running.server.update(live(running.server))
        assert "has started, and does not accept the superuser postgres" in str(told.value)
        assert "pg_hba.conf rejects connection" in str(told.value)
        assert "\n" not in str(told.value)
    finally:
        running.stop()
        hba.write_bytes(original)


def test_another_cluster_on_the_directory_is_refused(running: Node) -> None:
    with pytest.raises(UserError, match="another cluster"):
        running.server.replace(system_identifier="1").update(running.server)


def test_a_server_that_does_not_answer_yet_is_unavailable(running: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is there and does not answer starts or stops: no drift to repair."""

    def silence(*_: Any, **__: Any) -> Any:
        raise Unavailable("connection timeout expired")

    monkeypatch.setattr(type(running.host), "connect", silence)
    with pytest.raises(Unavailable, match="server db3 runs and does not answer yet: connection timeout expired"):
        running.server.read()


@pytest.mark.parametrize(
    ("name", "line", "why"),
    [
        ("pg_hba.conf", "host all all nowhere/32 trust", "invalid IP mask|nowhere/32"),
        ("postgresql.conf", "commit_siblings = lots", "setting could not be applied"),
    ],
)
def test_a_server_that_could_not_start_again_is_not_stopped(running: Node, name: str, line: str, why: str) -> None:
    before, file = pid(running), running.file(name)
    original = file.read_bytes()
    file.write_bytes(original + f"{line}\n".encode())
    number = len(original.splitlines()) + 1
    wanted = declared(running, max_connections="25")
    try:
        told = rf"^line {number} of .*{name} is wrong \(.*({why}).* could not start again and is left running"
        with pytest.raises(UserError, match=told):
            wanted.update(live(running.server))
        with pytest.raises(UserError, match=told):
            starting.restart(running.server, "db3", running.server.binaries)
        assert pid(running) == before
    finally:
        file.write_bytes(original)
    wanted.update(live(wanted))
    assert running.value("SHOW max_connections") == "25"
    running.server.update(wanted)


def test_destroy_stops_it_and_takes_its_log(servers: Servers) -> None:
    made = servers.primary("gone")
    process = psutil.Process(pid(made))
    children = process.children()
    made.server.delete()
    assert not made.running
    assert not lives(process)
    assert until(lambda: not any(child.is_running() for child in children), seconds=5)
    assert [entry.name for entry in Path(made.data).parent.iterdir()] == ["data"]
    made.server.delete()
    assert drift(made.server) == {"running"}
    made.directory.delete()
    assert made.server.read() is None
    made.server.delete()


def test_destroy_leaves_a_stranger_on_its_directory_running(servers: Servers, running: Node) -> None:
    before = pid(running)
    said: list[str] = []
    with reported_to(lambda text, _: said.append(text)):
        running.server.replace(system_identifier="1").delete()
    assert pid(running) == before
    assert running.log
    identifier = running.directory.system_identifier
    assert said == [
        f"{running.data} holds another cluster (system identifier {identifier}), and not server db3: it is left as it is"
    ]
    foreign = servers.place()
    foreign.mkdir(parents=True)
    (foreign / "precious").touch()
    log = foreign.with_name("postgresql.log")
    log.touch()
    running.server.replace(data_directory=str(foreign)).delete()
    assert log.exists()


def test_the_server_outlives_whoever_started_it(servers: Servers, primary: Node) -> None:
    del servers
    process = psutil.Process(pid(primary))
    assert process.ppid() != os.getpid()
    assert os.getpgid(process.pid) != os.getpgid(0)
    assert os.getsid(process.pid) != os.getsid(0)
    environment = (Path("/proc") / str(process.pid) / "environ").read_text()
    assert not re.search(r"(^|\0)(PULUMI|VAULT|PGPASS)", environment)
    descriptors = subprocess.run(
        ["ls", "-l", f"/proc/{process.pid}/fd"], check=True, capture_output=True, text=True
    ).stdout
    assert "pipe:" not in "\n".join(line for line in descriptors.splitlines() if re.search(r" [012] -> ", line))
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


def test_a_socket_that_was_removed_is_told_and_made_again(servers: Servers) -> None:
    node = servers.primary("unsocketed")
    socket = Path("/tmp") / f".s.PGSQL.{node.port}"
    before = node.host.postmaster(node.data)
    socket.unlink()
    live = node.server.read()
    assert live
    assert live.socket == "removed"
    assert node.server.changed(live) == {"socket"}
    assert "only a restart creates it again: it will be restarted" in text_of(cost_of(node.server, live))
    refused = node.server.replace(restart="refused")
    assert "the stack says restart: refused: nothing is changed" in (refused.refusal(live) or "")
    with pytest.raises(Conflict, match="the socket of server unsocketed was removed"):
        refused.update(live)
    assert node.host.postmaster(node.data) == before
    node.server.update(live)
    assert socket.exists()
    assert node.server.read() == node.server
