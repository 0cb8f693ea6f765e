"""What tde_replication.hosts.base promises, on every kind of host."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from psycopg import sql

from tde_replication import hosts, waiting
from tde_replication.errors import CommandFailed, Conflict, Unavailable, UserError
from tde_replication.hosts import facts
from tde_replication.hosts.base import FileStatus, Host
from tde_replication.hosts.superuser import Connection
from tde_replication.postgres.session import server_session
from tde_replication.waiting import until
from tests.hosts.machines import Machine

ROOT = Path(__file__).resolve().parents[2]
ODD = [
    "",
    " ",
    "$(touch /tmp/tde-contract-hit)",
    "`id`",
    "'",
    '"',
    "a'b\"c",
    "\\",
    "a\nb\n",
    "-rf",
    "--",
    "*",
    "~",
    "!x",
    "é ✓ 😀",
    "#",
    ";&|<>",
    "%s",
    "a=b",
    "\t",
    "{a,b}",
]


@pytest.fixture
def room(machine: Machine) -> Iterator[PurePosixPath]:
    """An empty directory of one test."""
    path = machine.room / f"test-{time.monotonic_ns()}"
    machine.host.make_directory(path)
    yield path
    machine.host.remove(path)


@pytest.fixture
def host(machine: Machine) -> Host:
    return machine.host


def shell(host: Host, script: str, *arguments: str, deadline: float = 20) -> str:
    return host.run(["/bin/sh", "-c", script, "sh", *arguments], deadline=deadline)


def gone(host: Host, pid: str) -> bool:
    return shell(host, 'kill -0 "$1" 2>/dev/null && echo there || echo gone', pid) == "gone\n"


def test_address_names_the_host_again(host: Host) -> None:
    assert hosts.host(host.address).address == host.address
    assert hosts.host(host.address).is_same_place(host)


def test_a_command_runs_as_the_account(host: Host) -> None:
    assert host.run(["/usr/bin/id", "-un"], deadline=10) == f"{host.account}\n"


def test_arguments_arrive_as_they_are(host: Host) -> None:
    output = host.run(["/usr/bin/printf", "%s\\0", *ODD], deadline=10)
    assert output.split("\0")[:-1] == ODD


def test_the_program_may_have_an_odd_name(host: Host, room: PurePosixPath) -> None:
    program = room / "a=b '$(c)" / "it's"
    host.write(program, b'#!/bin/sh\necho "ran $1"\n', mode=0o700)
    assert host.run([str(program), "x"], deadline=10) == "ran x\n"


def test_the_environment_is_a_clean_one_and_what_is_given(host: Host) -> None:
    output = host.run(["/usr/bin/env"], deadline=10, environment={"PGPASSFILE": "/a b/$x'y"})
    found = dict(line.split("=", 1) for line in output.splitlines())
    assert found.pop("PGPASSFILE") == "/a b/$x'y"
    assert found.pop("LC_ALL") == "C.UTF-8"
    assert found.pop("TZ") == "UTC"
    assert set(found) <= {"PATH", "PWD", "SHLVL", "_", "OLDPWD"}


def test_it_runs_in_the_directory_that_is_named_else_in_the_root(host: Host, room: PurePosixPath) -> None:
    host.make_directory(room / "it's here")
    assert host.run(["/bin/pwd"], deadline=10) == "/\n"
    assert host.run(["/bin/pwd"], deadline=10, directory=room / "it's here") == f"{room}/it's here\n"


@pytest.mark.parametrize("status", [1, 2, 44, 45, 126, 255])
def test_a_failure_has_its_status_and_what_was_said(host: Host, status: int) -> None:
    with pytest.raises(CommandFailed) as caught:
        shell(host, 'echo out; echo "no such thing: $1" >&2; exit "$1"', str(status))
    assert caught.value.status == status
    assert caught.value.output == f"no such thing: {status}\n"
    assert "sh failed" in str(caught.value)


def test_a_program_that_is_not_there_has_failed(host: Host) -> None:
    with pytest.raises(CommandFailed, match="no-such-program"):
        host.run(["/usr/lib/no-such-program"], deadline=10)


def test_much_output_on_both_streams_is_no_deadlock(host: Host) -> None:
    lines: list[str] = []
    script = (
        "i=0; while [ $i -lt 20000 ]; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; "
        "echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy >&2; i=$((i+1)); done"
    )
    output = host.run(["/bin/sh", "-c", script], deadline=60, on_line=lines.append)
    assert len(output) == 20000 * 51
    assert lines == ["y" * 50] * 20000


def test_a_line_without_an_end_is_told_too(host: Host) -> None:
    lines: list[str] = []
    assert host.run(["/bin/sh", "-c", "printf out; printf half >&2"], deadline=10, on_line=lines.append) == "out"
    assert lines == ["half"]


def test_progress_is_told_while_it_works(host: Host) -> None:
    told: list[tuple[float, str]] = []
    script = "for i in 1 2 3; do echo $i >&2; sleep 1; done"
    host.run(["/bin/sh", "-c", script], deadline=20, on_line=lambda line: told.append((time.monotonic(), line)))
    ended = time.monotonic()
    assert [line for _, line in told] == ["1", "2", "3"]
    assert ended - told[0][0] > 1.5


def test_a_command_reads_an_empty_input(host: Host) -> None:
    assert host.run(["/bin/cat"], deadline=10) == ""


def test_the_whole_group_ends_with_a_missed_deadline(host: Host, room: PurePosixPath) -> None:
    script = 'sleep 300 & echo "$!" >"$1/child"; echo "$$" >"$1/parent"; wait'
    started = time.monotonic()
    with pytest.raises(CommandFailed, match="did not end within 5 s"):
        shell(host, script, str(room), deadline=5)
    assert time.monotonic() - started < 30
    for name in ("child", "parent"):
        pid = (host.read(room / name) or b"").decode().strip()
        assert until(lambda pid=pid: gone(host, pid), seconds=20), name  # type: ignore[misc]


def test_an_interruption_ends_what_runs_and_not_what_cleans_up(
    host: Host, room: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "GRACE", 0.1)
    monkeypatch.setattr(waiting, "_interrupted", [])
    script = 'sleep 300 & echo "$!" >"$1/child"; echo "$$" >"$1/parent"; echo begun >&2; wait'
    with pytest.raises(UserError, match=r"interrupted while .* ran: the next run goes on from here"):
        host.run(["/bin/sh", "-c", script, "sh", str(room)], deadline=300, on_line=lambda _: waiting.interrupt())
    waiting._interrupted.clear()
    for name in ("child", "parent"):
        pid = (host.read(room / name) or b"").decode().strip()
        assert until(lambda pid=pid: gone(host, pid), seconds=20), name  # type: ignore[misc]
    assert shell(host, "sleep 0.3; echo done") == "done\n"


def test_the_whole_group_ends_with_the_caller(host: Host, room: PurePosixPath) -> None:
    program = (
        "import sys; from tde_replication import hosts\n"
        "hosts.host(sys.argv[1]).run(['/bin/sh', '-c', 'sleep 300 & echo $! >\"$0\"/child; wait', sys.argv[2]], deadline=300)"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, host.address, str(room)], cwd=ROOT)
    try:
        assert until(lambda: bool(host.read(room / "child")), seconds=20)
    finally:
        caller.kill()
        caller.wait()
    pid = (host.read(room / "child") or b"").decode().strip()
    assert until(lambda: gone(host, pid), seconds=10)


def test_several_threads_share_a_host(host: Host) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(host.run(["/bin/echo", str(n)], deadline=30)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"{n}\n" for n in range(8)]


# Files


@pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 2000], ids=["empty", "text", "bytes"])
def test_what_is_written_is_read(host: Host, room: PurePosixPath, content: bytes) -> None:
    host.write(room / "f", content, mode=0o600)
    assert host.read(room / "f") == content
    assert host.status(room / "f") == FileStatus("file", host.account, 0o600)
    assert host.listing(room) == ["f"]  # and no draft


def test_a_file_may_have_an_odd_name(host: Host, room: PurePosixPath) -> None:
    names = ["a b", "it's", "$(x)", "-rf", "line\nbreak\n", "é ✓", "50% \\n", ".hidden"]
    for name in names:
        host.write(room / name, name.encode(), mode=0o600)
        assert host.read(room / name) == name.encode()
    assert host.listing(room) == sorted(names)


def test_a_write_replaces_and_sets_the_mode(host: Host, room: PurePosixPath) -> None:
    host.write(room / "f", b"one", mode=0o600)
    host.write(room / "f", b"two", mode=0o644)
    assert host.read(room / "f") == b"two"
    assert host.status(room / "f") == FileStatus("file", host.account, 0o644)


def test_a_write_makes_the_directories_above(host: Host, room: PurePosixPath) -> None:
    host.write(room / "a" / "b" / "f", b"x", mode=0o600)
    assert host.status(room / "a" / "b") == FileStatus("directory", host.account, 0o700)


def test_a_write_that_cannot_be_leaves_nothing(host: Host, room: PurePosixPath) -> None:
    host.make_directory(room / "there")
    with pytest.raises((UserError, OSError)):
        host.write(room / "there", b"x", mode=0o600)
    assert host.listing(room) == ["there"]


def test_what_is_not_there(host: Host, room: PurePosixPath) -> None:
    host.write(room / "f", b"", mode=0o600)
    for path in (room / "nothing", room / "f" / "below", room / "no" / "where"):
        assert host.read(path) is None
        assert host.status(path) is None
        assert host.listing(path) == []
    assert host.listing(room / "f") == []
    host.remove(room / "nothing")


def test_status_tells_kinds_apart_and_does_not_follow_links(host: Host, room: PurePosixPath) -> None:
    shell(host, 'cd "$1"; mkdir -m 0750 d; ln -s d link; mkfifo pipe; chmod 640 pipe', str(room))
    assert host.status(room / "d") == FileStatus("directory", host.account, 0o750)
    link = host.status(room / "link")
    assert link
    assert link.kind == "other"
    assert host.status(room / "pipe") == FileStatus("other", host.account, 0o640)
    root = host.status(PurePosixPath("/etc"))
    assert root
    assert root.owner == "root"


def test_a_listing_is_whole_and_sorted(host: Host, room: PurePosixPath) -> None:
    names = ["b", ".c", "a\nb", "-x", "é"]
    for name in names:
        host.make_directory(room / name)
    host.write(room / "b" / "below", b"", mode=0o600)
    assert host.listing(room) == sorted(names)


def test_a_directory_may_be_there_already(host: Host, room: PurePosixPath) -> None:
    host.make_directory(room / "x" / "y")
    host.make_directory(room / "x" / "y")
    assert host.status(room / "x" / "y") == FileStatus("directory", host.account, 0o700)


def test_a_rename_moves_a_tree_and_takes_no_ones_place(host: Host, room: PurePosixPath) -> None:
    host.write(room / "old" / "f", b"x", mode=0o600)
    host.make_directory(room / "taken")
    host.rename(room / "old", room / "it's new")
    assert host.read(room / "it's new" / "f") == b"x"
    assert host.status(room / "old") is None
    with pytest.raises(UserError, match="exists already"):
        host.rename(room / "it's new", room / "taken")
    assert host.listing(room / "taken") == []
    assert host.read(room / "it's new" / "f") == b"x"


def test_removal_takes_a_tree_and_spares_what_a_link_leads_to(host: Host, room: PurePosixPath) -> None:
    host.write(room / "kept" / "f", b"x", mode=0o600)
    shell(host, 'ln -s ../kept "$1/link"', str(room))
    host.make_directory(room / "tree" / "deep" / "-rf")
    shell(host, 'ln -s ../kept "$1/tree/link"; chmod 500 "$1/tree/deep/-rf"', str(room))
    host.remove(room / "link")
    host.remove(room / "tree")
    assert host.listing(room) == ["kept"]
    assert host.read(room / "kept" / "f") == b"x"


def test_what_is_replaced_keeps_its_mode_and_attributes(host: Host, room: PurePosixPath) -> None:
    file = room / "pg_hba.conf"
    host.write(file, b"theirs", mode=0o440)
    host.replace(file, b"ours, and longer")
    assert host.read(file) == b"ours, and longer"
    assert host.status(file) == FileStatus("file", host.account, 0o440)
    assert host.listing(room) == ["pg_hba.conf"]
    with pytest.raises(UserError, match="does not exist"):
        host.replace(room / "nothing", b"")


def test_what_is_asked_together_is_what_is_asked_by_itself(
    host: Host, room: PurePosixPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is an error."""
    shell(host, 'cd "$1" && mkfifo fifo && ln -s file link && mkdir closed && chmod 0 closed', str(room))
    host.write(room / "file", b"\0 \n--\xff", mode=0o640)
    host.write(room / "a\n'b" / "c", b"", mode=0o600)
    paths = [room / name for name in ("file", "fifo", "link", "closed/x", "a\n'b", "a\n'b/c", "gone", "file/x")]
    commands = [["/bin/sh", "-c", text] for text in ("printf '\\n'", "echo no >&2; exit 46", "exit 0", "kill -9 $$")]

    def answer(ask: Callable[[Any], Any], about: Any) -> Any:
        try:
            return ask(about)
        except CommandFailed as failed:  # who reports the end by a signal, depends on which shell saw it
            return type(failed), failed.status, None if failed.status == 128 + 9 else str(failed)
        except UserError as problem:
            return type(problem), str(problem)

    def answers() -> list[Any]:
        asks: list[tuple[Callable[[Any], Any], Any]] = [
            *((ask, path) for path in paths for ask in (host.status, host.read, host.listing)),
            (host.postmaster, room),
            *((host.output, command) for command in commands),
        ]
        return [answer(*ask) for ask in asks]

    alone = answers()
    executed = Mock(side_effect=host._execute)  # type: ignore[attr-defined]
    monkeypatch.setattr(host, "_execute", executed)
    with facts.shared():
        for _ in range(2):
            host.look(statuses=paths, contents=paths, listings=paths, servers=[room], outputs=commands)
        assert answers() == alone
    assert executed.call_count == 1
    host.look(statuses=paths)  # where nothing is shared, nothing is asked
    assert executed.call_count == 1


def test_only_regular_files_are_read_or_replaced(host: Host, room: PurePosixPath) -> None:
    """A link may lead anywhere, and a FIFO never answers."""
    host.write(room / "kept", b"x", mode=0o600)
    shell(host, 'cd "$1"; ln -s kept link; mkfifo fifo; ln -s nothing dangling', str(room))
    for name in ("link", "fifo", "dangling"):
        with pytest.raises(Conflict, match="is a link or a device"):
            host.read(room / name)
        with pytest.raises(Conflict, match="is a link or a device"):
            host.replace(room / name, b"ours")
    assert host.real(room / "link") == room / "kept"
    assert host.read(room / "link", follow=True) == b"x"
    with pytest.raises(Conflict, match="is a link or a device"):
        host.read(room / "fifo", follow=True)
    assert host.real(room / "nowhere" / "at all") == room / "nowhere" / "at all"
    assert host.read(room / "kept") == b"x"


def test_a_file_that_is_far_too_large_is_not_read(host: Host, room: PurePosixPath) -> None:
    shell(host, 'head -c 20000000 /dev/zero >"$1/huge"', str(room))
    with pytest.raises(UserError, match="larger than 16 MiB"):
        host.read(room / "huge")


# Servers


@pytest.fixture(scope="module")
def data(machine: Machine) -> Iterator[PurePosixPath]:
    """The data directory of a server that runs."""
    place = machine.room / "server" / "data"
    machine.host.run(
        [
            *(str(machine.binaries / "initdb"), "--pgdata", str(place), "--username", "postgres", "--no-sync"),
            *("--auth-local", "peer", "--encoding", "UTF8", "--locale", "C.UTF-8"),
        ],
        deadline=120,
    )
    accounts = {machine.host.account, *machine.host.administrators, *machine.launcher.administrators}
    machine.host.write(place / "pg_hba.conf", b"local all postgres peer map=owner\n", mode=0o600)
    machine.host.write(
        place / "pg_ident.conf", "".join(f"owner {name} postgres\n" for name in accounts).encode(), mode=0o600
    )
    conf = f"port = 5999\nlisten_addresses = ''\nunix_socket_directories = '{place.parent}'\nfsync = off\n"
    machine.host.write(place / "postgresql.auto.conf", conf.encode(), mode=0o600)
    machine.launcher.start(machine.binaries, place)
    assert until(lambda: _answers(machine.host, place), seconds=30)
    yield place
    machine.launcher.stop(machine.binaries, place, deadline=20)


def _answers(host: Host, data: PurePosixPath) -> bool:
    try:
        host.connect(data, "postgres").close()
    except Unavailable:
        return False
    return True


def test_a_running_server_is_found(host: Host, data: PurePosixPath) -> None:
    found = host.postmaster(data)
    assert found
    assert found.port == 5999
    assert found.socket_directory == str(data.parent)
    assert not gone(host, str(found.pid))


def test_a_stale_pid_file_is_no_server(host: Host, room: PurePosixPath, data: PurePosixPath) -> None:
    running = host.read(data / "postmaster.pid") or b""
    assert host.postmaster(room) is None
    for content in (running, b"", b"\n", b"99999999\n", running.splitlines()[0] + b"\n"):
        host.write(room / "postmaster.pid", content, mode=0o600)
        assert host.postmaster(room) is None


def test_what_cannot_be_told_of_a_server_is_no_no(host: Host, room: PurePosixPath, data: PurePosixPath) -> None:
    assert host.postmaster(data), "in a container that does not run there surely is none"
    data = room / "data"
    host.make_directory(data)
    assert host.postmaster(data) is None
    shell(host, 'mkfifo "$1/postmaster.pid"', str(data))
    with pytest.raises(Unavailable, match="cannot tell whether a server runs on"):
        host.postmaster(data)
    shell(host, 'rm "$1/postmaster.pid"; chmod 0 "$1"', str(data))
    try:
        with pytest.raises(Unavailable, match="cannot tell whether a server runs on"):
            host.postmaster(data)
    finally:
        shell(host, 'chmod 700 "$1"', str(data))


@pytest.mark.parametrize(
    "content",
    [
        "{pid}",
        "{pid}\n{data}\n{started}\nx/victim\n{data}\n",
        "{pid}\n{data}\n{started}\n99999\n../..\n",
        "-{pid}\n{data}\n" + "9" * 3000,
    ],
    ids=["only a pid", "a path as port", "no such port", "much"],
)
def test_a_server_whose_lock_file_says_nonsense_runs_all_the_same(
    host: Host, data: PurePosixPath, content: str
) -> None:
    found = host.postmaster(data)
    assert found
    good = host.read(data / "postmaster.pid") or b""
    crafted_file = content.format(pid=found.pid, data=data, started=found.started)
    host.write(data / "postmaster.pid", crafted_file.encode(), mode=0o600)
    try:
        crafted = host.postmaster(data)
        assert crafted
        assert (crafted.pid, crafted.port, crafted.lost) == (found.pid, 0, False)
        assert crafted.socket_directory in {"", str(data), f"{data}/../.."}  # counted from the data directory
    finally:
        host.write(data / "postmaster.pid", good, mode=0o600)


def test_a_server_without_its_lock_file_or_directory_is_found(host: Host, data: PurePosixPath) -> None:
    """PostgreSQL itself looks for them once a minute."""
    found = host.postmaster(data)
    assert found
    good = host.read(data / "postmaster.pid") or b""
    host.remove(data / "postmaster.pid")
    try:
        lost = host.postmaster(data)
        assert lost
        assert (lost.pid, lost.lost, host.serves(data)) == (found.pid, True, False)
        with pytest.raises(Unavailable, match="no server runs on"):
            host.connect(data, "postgres")
    finally:
        host.write(data / "postmaster.pid", good, mode=0o600)
    assert host.serves(data)


def test_a_connection_is_the_superusers_and_commits_by_itself(host: Host, data: PurePosixPath) -> None:
    with host.connect(data, "postgres") as connection:
        assert connection.autocommit
        row = connection.execute(
            "SELECT current_user, current_setting('is_superuser'), current_setting('application_name')"
        )
        assert row.fetchone() == ("postgres", "on", "tde-replication")
        assert connection.execute("SELECT inet_server_addr() IS NULL").fetchone() == (True,)


def test_a_connection_takes_options(host: Host, data: PurePosixPath) -> None:
    with host.connect(data, "template1", options="-c work_mem=7MB") as connection:
        assert connection.execute("SELECT current_database(), current_setting('work_mem')").fetchone() == (
            "template1",
            "7MB",
        )


def test_texts_are_texts_in_a_database_without_an_encoding(host: Host, data: PurePosixPath) -> None:
    """As initdb makes it where there is no locale: Debian's packages on a machine without one."""
    with host.connect(data, "postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS plain")
        connection.execute(
            "CREATE DATABASE plain TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C' LOCALE_PROVIDER libc"
        )
    with host.connect(data, "plain") as connection:
        assert connection.execute("SELECT 'é'::text, current_database()").fetchone() == ("é", "plain")


def test_much_goes_through_a_connection_both_ways(host: Host, data: PurePosixPath) -> None:
    text = "é" * 1_500_000
    with host.connect(data, "postgres") as connection:
        assert connection.execute("SELECT %s::text, repeat('x', 3000000)", [text]).fetchone() == (text, "x" * 3_000_000)


@pytest.mark.parametrize(
    "query",
    [sql.SQL("SELECT repeat('x', 1000), generate_series(1, 1000000000)"), sql.SQL("SELECT repeat('x', 100000000)")],
    ids=["rows without end", "one value"],
)
def test_no_more_of_an_answer_is_read_than_fits(host: Host, data: PurePosixPath, query: sql.SQL) -> None:
    with server_session(host, data, "test") as session:
        with pytest.raises(Unavailable, match="test: the server answered one statement with more than 16 MiB, and"):
            session.rows(query)
        assert session.connection.closed
        intake = session.connection.intake  # a value is all there before it is a row: only a bridge can cut it
        assert intake is None or intake.too_long
    host.connect(data, "postgres").close()


def test_what_is_asked_one_after_the_other_is_not_added_up(host: Host, data: PurePosixPath) -> None:
    with server_session(host, data, "test") as session:
        for _ in range(3):
            assert session.value("SELECT repeat('x', 10000000)") == "x" * 10_000_000


def test_many_connections_at_once(host: Host, data: PurePosixPath) -> None:
    opened = [host.connect(data, "postgres") for _ in range(6)]
    pids = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in opened}
    assert len(pids) == 6
    for connection in opened:
        connection.close()


@pytest.fixture
def directories(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The temporary directories that are made from now on."""
    made: list[Path] = []
    make = tempfile.mkdtemp

    def recorded(*arguments: Any, **names: Any) -> str:
        made.append(Path(make(*arguments, **names)))
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", recorded)
    return made


def test_nothing_is_left_of_a_connection(host: Host, data: PurePosixPath, directories: list[Path]) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        host.connect(data, "postgres").close()
    with pytest.raises(Unavailable):
        host.connect(data, "no such database")
    with host.connect(data, "postgres") as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        assert until(lambda: connection.execute(query).fetchone() == (0,), seconds=10)
    assert until(lambda: threading.active_count() <= threads, seconds=10)
    assert until(lambda: len(os.listdir("/proc/self/fd")) <= files, seconds=10)  # noqa: PTH208
    assert not any(directory.exists() for directory in directories)


def test_no_server_is_unavailable(host: Host, room: PurePosixPath) -> None:
    with pytest.raises(Unavailable, match=f"no server runs on {room}"):
        host.connect(room, "postgres")


def test_a_launched_server_tells_its_log_and_is_halted(machine: Machine, data: PurePosixPath) -> None:
    if not machine.launches:
        pytest.skip("no systemd runs here: the kind with booted machines has this")
    host = machine.host
    host.stop(machine.binaries, data, deadline=20)
    assert host.postmaster(data) is None
    host.stop(machine.binaries, data, deadline=20)  # it may be down already
    mark = host.start(machine.binaries, data)
    assert until(lambda: _answers(host, data), seconds=60)
    ready = "database system is ready to accept connections"
    assert until(lambda: ready in host.log_since(data, mark), seconds=60), "docker passes lines on when it has time"
    assert "shutting down" not in host.log_since(data, mark)


def test_a_busy_server_is_halted_all_the_same(machine: Machine, data: PurePosixPath) -> None:
    if not machine.launches:
        pytest.skip("no systemd runs here: the kind with booted machines has this")
    host = machine.host
    with host.connect(data, "postgres") as connection:
        thread = threading.Thread(target=lambda: _ignoring(connection), daemon=True)
        thread.start()
        host.stop(machine.binaries, data, deadline=20)
        thread.join(10)
    assert host.postmaster(data) is None
    host.start(machine.binaries, data)
    assert until(lambda: _answers(host, data), seconds=60)


def _ignoring(connection: Connection) -> None:
    with suppress(psycopg.Error):  # the server is stopped under it
        connection.execute("SELECT pg_sleep(60)")


def test_a_server_that_dies_tells_why(machine: Machine, data: PurePosixPath) -> None:
    if not machine.launches:
        pytest.skip("no systemd runs here: the kind with booted machines has this")
    host = machine.host
    host.stop(machine.binaries, data, deadline=20)
    good = host.read(data / "postgresql.auto.conf") or b""
    host.write(data / "postgresql.auto.conf", good + b"shared_preload_libraries = 'no_such_library'\n", mode=0o600)
    try:
        mark = host.start(machine.binaries, data)
        assert until(lambda: "no_such_library" in host.log_since(data, mark), seconds=60)
        assert until(lambda: "FATAL" in host.log_since(data, mark), seconds=60)
        assert until(lambda: host.postmaster(data) is None, seconds=60)
    finally:
        host.write(data / "postgresql.auto.conf", good, mode=0o600)
        host.start(machine.binaries, data)
    assert until(lambda: _answers(host, data), seconds=60)
