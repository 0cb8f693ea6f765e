"""An update of parameters that fails, or is killed, leaves the server as it was, and says why."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.hosts.base import Postmaster
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.parallel import parallel_map
from tde_replication.postgres import rollback, server as server_module
from tde_replication.postgres.guc import values_in
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.rollback import delete_there
from tde_replication.postgres.server import Server
from tde_replication.progress import reported_to
from tests.providers.servers import Node, Servers


@pytest.fixture(scope="module")
def node(servers: Servers) -> Iterator[Node]:
    """A server of this module's own, with a value that somebody else set."""
    made = servers.primary("db5", work_mem="8MB")
    made.rows("ALTER SYSTEM SET wal_keep_size = '32MB'")
    made.rows("SELECT pg_reload_conf()")
    yield made
    made.stop()


def with_settings(node: Node, **settings: str) -> Server:
    declared = {name.replace("__", "."): value for name, value in settings.items()}
    return node.server.replace(settings=node.server.settings | declared)


def live(server: Server) -> Server:
    found = server.read()
    assert found is not None
    return found


def pid(node: Node) -> int:
    found = node.host.postmaster(node.data)
    assert isinstance(found, Postmaster)
    return found.pid


def said(node: Node) -> dict[str, str]:
    """What its postgresql.auto.conf says."""
    return values_in(node.file("postgresql.auto.conf").read_text())


def as_before(node: Node, before: dict[str, str]) -> None:
    assert node.running
    assert said(node) == before
    assert node.server.changed(live(node.server)) == set()
    assert sorted(path.name for path in Path(node.data).glob("pgsql_tmp*")) == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"shared_preload_libraries": "pg_cron"}, 'new shared_preload_libraries: could not access file "pg_cron"'),
        ({"max_connections": "3", "work_mem": "9MB"}, r'"superuser_reserved_connections" \(3\) plus'),
        ({"shared_buffers": "8000GB"}, r"it needs \d+ MB of shared memory, and its machine has \d+ MB"),
        ({"huge_pages": "on"}, r"it needs \d+ huge pages, and its machine has 0 for it"),
        ({"ssl": "on", "ssl_cert_file": "nowhere.crt"}, "SSL is not supported|could not load server certificate file"),
        ({"wal_level": "minimal"}, 'WAL streaming .* requires "wal_level"'),
        ({"no_such_thing": "1"}, 'unrecognized configuration parameter "no_such_thing"'),
        ({"work_mem": "lots"}, 'invalid value for parameter "work_mem": "lots"'),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_value_that_could_not_start_is_refused_before_anything_is_touched(
    node: Node, settings: dict[str, str], why: str
) -> None:
    before, process = said(node), pid(node)
    with pytest.raises(Conflict, match=why) as told:
        with_settings(node, **settings).update(live(node.server))
    assert str(told.value).startswith("server db5 would not start with its new ")
    assert "\n" not in str(told.value)
    assert pid(node) == process
    as_before(node, before)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"unix_socket_directories": "/nowhere"}, "could not create lock file"),
        ({"log_directory": "/proc/nowhere", "logging_collector": "on"}, "could not (create|open)"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_server_that_does_not_start_again_is_started_as_it_was(
    node: Node, settings: dict[str, str], why: str
) -> None:
    before = said(node)
    with pytest.raises(UserError, match=why) as told:
        with_settings(node, commit_siblings="6", **settings).update(live(node.server))
    assert str(told.value).startswith("server db5 did not start: ")
    assert str(told.value).endswith("Its former values are put back, and it runs as before")
    as_before(node, before)


def test_what_was_set_before_the_value_that_is_refused_is_put_back(node: Node) -> None:
    """ALTER SYSTEM sets one after the other."""
    before, process = said(node), pid(node)
    changed = with_settings(node, commit_siblings="6", wal_keep_size="48MB", data_directory="/nowhere", work_mem="9MB")
    with pytest.raises(UserError, match=r'"data_directory" cannot be changed.* put back, and it runs as before'):
        changed.update(live(node.server))
    assert pid(node) == process
    as_before(node, before)


def test_a_stopped_server_keeps_its_file(node: Node) -> None:
    before = said(node)
    node.stop()
    with pytest.raises(UserError, match=r'"pg_cron".* Its former values are put back, and it is down, as before'):
        with_settings(node, shared_preload_libraries="pg_cron").update(live(node.server))
    assert not node.running
    node.server.update(live(node.server))
    as_before(node, before)


def test_a_first_start_that_fails_is_no_burden_for_the_next(servers: Servers) -> None:
    directory = servers.directory().create()
    wrong = servers.server(directory, "db6", {"max_connections": "3"})
    made = Node(directory, wrong.replace(settings={**wrong.settings, "max_connections": "20"}))
    servers.made.append(made)
    library = wrong.replace(settings=made.server.settings | {"shared_preload_libraries": "pg_cron"})
    with pytest.raises(UserError, match=r'server db6 did not start: .*"superuser_reserved_connections"'):
        wrong.create()
    with pytest.raises(UserError, match='server db6 did not start: could not access file "pg_cron"'):
        library.create()
    made.server.create()
    assert "pg_cron" not in made.file("postgresql.auto.conf").read_text()
    made.stop()


class Killed(BaseException):
    """As kill -9: nothing of ours runs after it."""


def killed(place: str, call: int, declared: Server, old: Server) -> None:
    """An update that dies in that call of one of its functions."""
    real: Callable[..., Any] = getattr(server_module, place)
    calls = iter(range(1, 100))

    def die(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server_module, place, die)
        with pytest.raises(Killed):
            declared.update(old)


KILLS = [("alter_system", 2), ("reload_configuration", 1), ("start", 1)]
"""With some values set, with all of them, and with the server stopped for them."""


@pytest.mark.parametrize(("place", "call"), KILLS)
def test_a_killed_update_is_shown_and_put_back(node: Node, place: str, call: int) -> None:
    before = said(node)
    wanted = with_settings(node, max_connections="25", wal_keep_size="48MB", commit_siblings="6")
    killed(place, call, wanted, live(node.server))
    assert said(node) != before
    found = live(node.server)
    # The line was taken out of the stack file meanwhile, and the state knows nothing of it.
    assert node.server.changed(found) >= {"unfinished"}
    assert {"max_connections", "wal_keep_size", "commit_siblings"} <= set(found.unfinished)
    told: list[str] = []
    with reported_to(lambda text, _: told.append(text)):
        node.server.update(found)
    assert any("an interrupted `up` had changed" in text for text in told)
    as_before(node, before)
    assert node.value("SHOW max_connections") == "20"


@pytest.mark.parametrize(("place", "call"), KILLS)
def test_an_update_after_a_killed_one_finishes_the_work(node: Node, place: str, call: int) -> None:
    before = said(node)
    wanted = with_settings(node, max_connections="25", commit_siblings="6")
    killed(place, call, wanted, live(node.server))
    found = live(wanted)
    wanted.update(found)
    assert wanted.changed(live(wanted)) == set()
    assert node.value("SHOW max_connections") == "25"
    node.server.update(live(wanted))
    as_before(node, before)


@pytest.mark.parametrize(("place", "call"), KILLS)
def test_somebodys_server_gets_its_own_values_back_after_a_killed_update(node: Node, place: str, call: int) -> None:
    before = said(node)
    adopted = node.server.replace(ours=False)
    wanted = with_settings(node, max_connections="25", wal_keep_size="48MB").replace(ours=False)
    killed(place, call, wanted, adopted)
    made = wanted.update(live(adopted))
    assert made.found["wal_keep_size"] == "32MB"
    assert node.value("SHOW wal_keep_size") == "48MB"
    killed(
        place,
        call,
        made.replace(settings=made.settings | {"wal_keep_size": "64MB", "max_connections": "26"}),
        live(made),
    )
    made.replace(settings={name: made.settings[name] for name in ("max_connections", "wal_keep_size")}).delete()
    assert node.running
    assert said(node) == {name: value for name, value in before.items() if name != "max_connections"}
    node.server.update(live(node.server))
    as_before(node, before)


def test_what_is_taken_away_from_a_server_that_was_killed_meanwhile(node: Node) -> None:
    """By several resources at once, while it is down."""
    before = said(node)
    rules = [
        HbaRule.model_validate({**node.inside, "role": "replicator", "address": f"192.0.2.{number}/32"})
        for number in range(1, 4)
    ]
    for rule in rules:
        rule.create()
    killed("start", 1, with_settings(node, max_connections="25"), live(node.server))
    assert not node.running
    parallel_map(delete_there, rules)
    assert [rule.read() for rule in rules] == [None] * 3
    as_before(node, before)
    node.stop()
    with pytest.raises(Unavailable, match="no server runs"):
        delete_there(rules[0])
    node.server.update(live(node.server))


def test_what_cannot_be_put_back_is_said_and_done_by_the_next(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = said(node)
    wanted = with_settings(node, unix_socket_directories="/nowhere")

    def fail(*_: Any) -> None:
        raise UserError("there is no memory")

    with monkeypatch.context() as patched:
        patched.setattr(rollback, "start", fail)
        with pytest.raises(UserError, match=r"could not all be put back \(there is no memory\).* the next `up` or"):
            wanted.update(live(node.server))
    assert not node.running
    found = live(node.server)
    assert node.server.changed(found) == {"running", "unfinished"}
    node.server.update(found)
    as_before(node, before)


def test_a_note_that_cannot_be_read_is_told(node: Node) -> None:
    note = node.file(rollback.NOTE)
    note.write_text("[]")
    shutil.chown(note, node.host.account)
    try:
        assert node.server.changed(live(node.server)) == {"unfinished"}
        with pytest.raises(UserError, match="does not say what an interrupted `up` has changed"):
            node.server.update(live(node.server))
    finally:
        note.unlink()


def test_a_base_backup_leaves_the_note_out(servers: Servers, node: Node) -> None:
    note = node.file(rollback.NOTE)
    note.write_text("{}")
    shutil.chown(note, node.host.account)
    try:
        standby = servers.standby(node, "db7")
        assert not standby.file(rollback.NOTE).exists()
        standby.stop()
    finally:
        note.unlink()


def test_what_a_trial_has_left_is_in_the_way_of_nothing(node: Node) -> None:
    scratch = node.data / "pgsql_tmp.tde-replication"
    LocalHost().write(scratch / "global" / "pg_control", b"old", mode=0o600)
    before = said(node)
    node.server.update(live(node.server))
    as_before(node, before)


def test_a_value_that_came_by_the_preview_is_refused_there(node: Node) -> None:
    wrong = with_settings(node, work_mem="lots", max_connections="-5", no_such_thing="1", auto_explain__x="fine")
    told = wrong.refusal(live(node.server))
    assert told is not None
    for part in (
        'invalid value for parameter "work_mem": "lots"',
        '-5 is outside the valid range for parameter "max_connections" (1 .. 262143)',
        'unrecognized configuration parameter "no_such_thing"',
    ):
        assert part in told
    assert "auto_explain" not in told
    assert node.server.refusal(live(node.server)) is None


def test_a_server_that_takes_no_alter_system_is_told_at_preview(node: Node) -> None:
    conf = node.file("postgresql.conf")
    original = conf.read_bytes()
    conf.write_bytes(original + b"allow_alter_system = off\n")
    node.rows("SELECT pg_reload_conf()")
    try:
        told = with_settings(node, work_mem="9MB").refusal(node.server)
        assert told is not None
        assert told.startswith("server db5 refuses ALTER SYSTEM, by which the stack sets parameters: ")
        assert node.server.refusal(live(node.server)) is None
    finally:
        conf.write_bytes(original)
        node.rows("SELECT pg_reload_conf()")


def test_a_standby_that_does_not_start_again_follows_as_before(servers: Servers, node: Node) -> None:
    standby = servers.standby(node, "db8")
    before = said(standby)
    with pytest.raises(UserError, match=r"could not create lock file.* put back, and it runs as before"):
        with_settings(standby, unix_socket_directories="/nowhere").update(live(standby.server))
    as_before(standby, before)
    assert standby.value("SELECT pg_is_in_recovery()")
    standby.stop()


def test_what_keeps_a_server_from_having_a_standby_is_told_at_preview(servers: Servers) -> None:
    made = servers.primary("db9", wal_level="minimal", max_wal_senders="0")
    own = ("wal_level", "max_wal_senders")
    adopting = made.server.replace(
        ours=False, settings={name: value for name, value in made.server.settings.items() if name not in own}
    )
    told = adopting.refusal_of_adoption(live(adopting))
    assert told == (
        "server db9 can have no standby with wal_level = minimal (set it to replica in its settings), max_wal_senders = 0 "
        "(set it to 10 in its settings)"
    )
    declared = adopting.replace(settings=adopting.settings | {"wal_level": "replica", "max_wal_senders": "5"})
    assert declared.refusal_of_adoption(live(declared)) is None
    # Together with whatever else there is against it.
    loading = live(adopting).replace(settings=adopting.settings | {"shared_preload_libraries": "auto_explain"})
    both = str(adopting.refusal_of_adoption(loading))
    assert "loads auto_explain at its start" in both
    assert str(told) in both
    made.stop()
