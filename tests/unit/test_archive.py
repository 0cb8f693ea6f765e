"""The archive that a stack file declares: what becomes of it on each server, and what is refused."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import Mock

import pytest

from tde_replication import hosts, stack_file
from tde_replication.errors import CommandFailed, Conflict, UserError
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.inheritance import left_out
from tde_replication.postgres.stanza import Stanza
from tde_replication.preflight import archive as preflight
from tde_replication.preflight.archive import check_archive
from tde_replication.stack_file import StackFileError
from tests.unit.test_plan import planned

DECLARED = {"pgbackrest": {"stanza": "orders"}}
BOTH: dict[str, Any] = {"db1": {}, "db2": {}}
AWKWARD = "/srv/it's 100%/db 1/data"


def test_every_server_may_become_the_primary_and_read_the_archive() -> None:
    plan = planned(BOTH, archive=DECLARED)
    for member in plan.members:
        data = member.placement.data
        assert {name: member.parameters.get(name) for name in pgbackrest.PARAMETERS} == {
            "archive_mode": "on",
            "archive_command": f'pgbackrest --stanza=orders --pg1-path={data} archive-push "%p"',
            "archive_library": None,
            "restore_command": f'pgbackrest --stanza=orders --pg1-path={data} archive-get %f "%p"',
        }
    assert not set(pgbackrest.PARAMETERS) & planned(BOTH).primary.parameters.keys()


def test_encrypted_wal_leaves_and_comes_back_by_the_wrappers_of_pg_tde() -> None:
    plan = planned(BOTH, archive=DECLARED, walEncryption=True)
    push, get = (plan.primary.parameters[name] for name in (pgbackrest.COMMAND, pgbackrest.RESTORE))
    programs = "/usr/lib/postgresql/18/bin"
    inner = "pgbackrest --stanza=orders --pg1-path=/srv/db1/data"
    assert push == f"{programs}/pg_tde_archive_decrypt %f %p '{inner} archive-push \"%%p\"'"
    assert get == f"{programs}/pg_tde_restore_encrypt %f %p '{inner} archive-get %%f \"%%p\"'"
    without = planned(
        BOTH, {"db1": {"has_pg_tde": False}}, encryption="if-available", archive=DECLARED, walEncryption=True
    )
    assert without.primary.parameters[pgbackrest.COMMAND].startswith("pgbackrest ")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_shell_gets_each_path_as_one_word(tmp_path: Path, *, wrapped: bool) -> None:
    """As PostgreSQL runs it, and the wrapper as PostgreSQL does."""
    programs = tmp_path / "it's 5% of bin"
    programs.mkdir()
    said = tmp_path / "said"
    (tmp_path / "pgbackrest").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{shlex.quote(str(said))}\n')
    (programs / "pg_tde_archive_decrypt").write_text(
        '#!/bin/sh\ncommand=$(printf %s "$3" | sed "s/%p/\\/dev\\/shm\\/segment/g; s/%%/%/g")\nexec /bin/sh -c "$command"\n'
    )
    for program in (tmp_path / "pgbackrest", programs / "pg_tde_archive_decrypt"):
        program.chmod(0o755)
    command = pgbackrest.archive_command("orders", PurePosixPath(AWKWARD), PurePosixPath(programs) if wrapped else None)
    run = as_postgres(command, {"p": "pg_wal/0001", "f": "0001", "%": "%"})
    subprocess.run(["/bin/sh", "-c", run], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    path = "/dev/shm/segment" if wrapped else "pg_wal/0001"
    assert said.read_text().splitlines() == ["--stanza=orders", f"--pg1-path={AWKWARD}", "archive-push", path]


def as_postgres(command: str, values: Mapping[str, str]) -> str:
    parts = iter(command)
    return "".join(values[next(parts)] if char == "%" else char for char in parts)


@pytest.mark.parametrize("name", ["a b", "-x", "x;id", "x/y", "", "..", "a..b", 'x"', "$(id)", "ä", "x" * 64, "x\ny"])
def test_a_stanza_is_a_plain_name(name: str) -> None:
    with pytest.raises(StackFileError, match=r"cluster\.archive\.pgbackrest\.stanza: "):
        stack_file.parse("test", {"primary": "db1", "servers": BOTH, "archive": {"pgbackrest": {"stanza": name}}})


def test_what_the_archive_decides_is_no_setting_of_a_server() -> None:
    own = {"archive_command": "true", "restore_command": "false", "archive_timeout": "60s"}
    servers = {"db1": {"settings": own}, "db2": {}}
    stack_file.parse("test", {"primary": "db1", "servers": servers})
    with pytest.raises(StackFileError) as caught:
        stack_file.parse("test", {"primary": "db1", "servers": servers, "archive": DECLARED})
    assert caught.value.mistakes == [
        f"cluster.servers.db1.settings.{name}: the stack sets this parameter itself: see archive of the cluster"
        for name in ("archive_command", "restore_command")
    ]


def test_a_clone_lacks_nothing_that_the_archive_decides() -> None:
    found = {"archive_mode": "on", "archive_command": "x", "restore_command": "y"}
    assert {one.told for one in left_out(found, lambda _: True).values()} == {True}
    assert {one.told for one in left_out(found, lambda _: True, archived=True).values()} == {False}


HERE = "7301"
PROGRAMS = ("postgres", pgbackrest.DECRYPT, pgbackrest.ENCRYPT)
STATUS = {0: "ok", 1: "missing stanza path", 99: "[HostConnectError] no route"}


def info(*, code: int = 0, system: str = HERE, cipher: str = "aes-256-cbc") -> str:
    status = f'{{"code":{code},"message":"{STATUS[code]}"}}'
    db = "" if code else f'{{"id":1,"repo-key":1,"system-id":{system},"version":"18"}}'
    return (
        f'[{{"archive":[],"backup":[],"cipher":"{cipher}","db":[{db}],"name":"orders",'
        f'"repo":[{{"cipher":"{cipher}","key":1,"status":{status}}}],"status":{status}}}]'
    )


def machine(said: str = "", version: str = "pgBackRest 2.55.1\n", files: Sequence[str] = PROGRAMS) -> Mock:
    """One that has pgBackRest, and says `said` of the stanza."""

    def output(command: list[str]) -> str:
        if command[1] == "version":
            if not version:
                raise CommandFailed("pgbackrest", 127, "exec: pgbackrest: not found")
            return version
        if said.startswith("P00"):
            raise CommandFailed("pgbackrest", 41, said)
        return said or info()

    found = Mock(account="postgres", output=output)
    found.listing.return_value = list(files)
    found.serves.return_value = False
    found.postmaster.return_value = Mock(port=5432, socket_directory="/run")
    return found


def asked(monkeypatch: pytest.MonkeyPatch, one: Mock, two: Mock, **declared: Any) -> tuple[list[str], list[str]]:
    machines = {"ssh://one": one, "ssh://two": two}
    monkeypatch.setattr(hosts, "host", machines.__getitem__)
    monkeypatch.setattr(preflight, "_identifier", lambda _: HERE)
    places = {"db1": {"address": "ssh://one"}, "db2": {"address": "ssh://two"}}
    return check_archive(planned(BOTH, places, archive=DECLARED, **declared))


def test_what_is_well_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, machine(), machine()) == ([], [])
    assert asked(monkeypatch, machine(info(code=1)), machine(info(code=1))) == ([], [])


PLACE = "cluster.archive.pgbackrest"
DENIED = "P00  ERROR: [041]: unable to open file '/etc/pgbackrest.conf' for read: [13] Permission denied\n"


@pytest.mark.parametrize(
    ("one", "two", "sentence"),
    [
        (
            machine(),
            machine(version=""),
            "there is no pgbackrest on db2: install it there (any server may become the primary)",
        ),
        (
            machine(version="pgBackRest 2.50\n"),
            machine(),
            "pgBackRest 2.50 on db1 does not know PostgreSQL 18: install 2.55",
        ),
        (
            machine(),
            machine(DENIED),
            "on db2, `pgbackrest info` failed as account postgres: unable to open file '/etc/pgbackrest",
        ),
        (machine(), machine(info(code=1)), "db2 does not find stanza orders, which the primary has in its repository"),
        (
            machine(info(system="42")),
            machine(),
            "stanza orders is of another cluster (system identifier 42): nothing is changed",
        ),
    ],
    ids=["missing", "too old", "denied", "another repository", "another cluster"],
)
def test_what_a_machine_has_against_it(one: Mock, two: Mock, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [told], _ = asked(monkeypatch, one, two)
    assert told.removeprefix(PLACE).removeprefix(".stanza").startswith(f": {sentence}")


def test_a_repository_in_clear_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, [notice] = asked(monkeypatch, machine(info(cipher="none")), machine(info(cipher="none")))
    assert notice.startswith("repository 1 of stanza orders is not encrypted: WAL is archived in clear there.")


def test_encrypted_wal_needs_the_wrappers(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = machine(files=["postgres"])
    [told], _ = asked(monkeypatch, machine(), bare, walEncryption=True)
    assert told.startswith(
        f"{PLACE}: db2 has no pg_tde_archive_decrypt and no pg_tde_restore_encrypt in /usr/lib/postgresql/"
    )


def stanza(monkeypatch: pytest.MonkeyPatch, there: Mock) -> Stanza:
    monkeypatch.setattr(hosts, "host", lambda _: there)
    return Stanza(host="local", data_directory="/srv/db1/data", system_identifier=HERE, stanza="orders")


def commands(there: Mock) -> list[str]:
    return [call.args[0][-1] for call in there.run.call_args_list]


def test_a_stanza_is_made_once_and_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = machine(info(code=1))
    declared = stanza(monkeypatch, empty)
    assert declared.read() is None
    declared.create()
    assert commands(empty) == ["stanza-create", "check"]
    there = machine()
    declared = stanza(monkeypatch, there)
    assert declared.read() == declared
    declared.create()
    assert commands(there) == ["check"]
    declared.delete()
    assert commands(there) == ["check"]


def test_a_stanza_of_another_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = machine(info(system="42"))
    declared = stanza(monkeypatch, other)
    live = declared.read()
    assert live
    assert declared.refusal(live)
    with pytest.raises(Conflict, match="is of another cluster"):
        declared.create()
    assert commands(other) == []


def test_a_repository_that_does_not_answer_is_no_stanza_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in (DENIED, info(code=99), "junk"):
        declared = stanza(monkeypatch, machine(said))
        assert declared.read() == declared


def test_why_no_wal_arrives_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = machine()
    words = (
        "2026-12-01 04:25:17.502 P00  ERROR: [082]: WAL segment was not archived\n   HINT: check the archive_command.\n"
    )
    failing.run.side_effect = CommandFailed("pgbackrest", 82, words)
    with pytest.raises(UserError) as caught:
        stanza(monkeypatch, failing).create()
    assert str(caught.value) == (
        "stanza orders: `pgbackrest check` failed: WAL segment was not archived; HINT: check the archive_command"
    )


def test_an_adopted_server_keeps_an_archive_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(
        {"db1": {"adopt": True, "port": 5432, "dataDirectory": "/srv/db1/data"}, "db2": {}}, archive=DECLARED
    )
    assert {pgbackrest.MODE, pgbackrest.COMMAND, pgbackrest.RESTORE} <= plan.primary.given_back.keys()
    there = machine()
    there.serves.return_value = True
    monkeypatch.setattr(hosts, "host", lambda _: there)

    def own(**values: str) -> list[str]:
        session = Mock(rows=Mock(return_value=list(values.items())))
        opened = Mock(__enter__=Mock(return_value=session), __exit__=Mock(return_value=None))
        monkeypatch.setattr(preflight, "server_session", Mock(return_value=opened))
        return list(preflight._against_own(plan.primary))

    [told] = own(archive_mode="on", archive_command="cp %p /archive/%f")
    assert told.startswith(
        "cluster.archive: db1 was here before the stack and has archive_command of its own, which is left"
    )
    assert own(archive_mode="on") == own(archive_mode="on", archive_command="") == []
    # Changed by hand since the stack has set both: that is drift.
    ours = plan.primary.parameters[pgbackrest.RESTORE]
    assert own(archive_command="true", restore_command=ours) == []
    assert list(preflight._against_own(plan.member("db2"))) == []
