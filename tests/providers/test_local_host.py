"""LocalHost: commands to their end and no further, files whole or not at all."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import psutil
import pytest

from tde_replication.errors import CommandFailed, Conflict, Unavailable, UserError
from tde_replication.hosts import answer, file_scripts as scripts
from tde_replication.hosts.account import PROJECT, service_account
from tde_replication.hosts.base import Postmaster
from tde_replication.hosts.local import machine as local
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.waiting import until
from tests.processes import lives, pid_lives
from tests.providers.servers import ground

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root owns what its servers' account does not")
NASTY = [
    "$(touch /tmp/owned)",
    "`id`",
    "a  b",
    "it's",
    '"',
    "\\n",
    "new\nline",
    "*",
    "~",
    "-n",
    "",
    "ünï",
    "%s",
    ";",
    "$1",
]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    made = ground()
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


@pytest.fixture
def host() -> LocalHost:
    return LocalHost()


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of its own, below which things are pruned."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    monkeypatch.setattr(local, "PROJECT", made)
    yield made
    shutil.rmtree(made)


@AS_ROOT
def test_a_directory_that_another_thread_just_makes_is_not_there_yet(
    host: LocalHost, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks meanwhile what is in it is let in, or told that there is nothing."""
    reached, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def paused(change: Callable[..., None]) -> Callable[..., None]:
        def slowly(*arguments: int) -> None:
            reached.release()
            assert go_on.acquire(timeout=20)
            change(*arguments)

        return slowly

    monkeypatch.setattr(os, "fchown", paused(os.fchown))
    monkeypatch.setattr(os, "fchmod", paused(os.fchmod))
    token = pure(project / "new" / "stack" / "db1" / "token")
    writing = threading.Thread(target=lambda: host.write(token, b"1", mode=0o600))
    writing.start()
    for _ in range(3):
        assert reached.acquire(timeout=20)
        assert host.status(token) is None
        assert host.listing(token.parent) == []
        go_on.release()
    writing.join()
    assert host.read(token) == b"1"
    assert [place.name for place in (project / "new" / "stack").iterdir()] == ["db1"]


@AS_ROOT
def test_a_directory_that_another_thread_just_makes_is_waited_for(
    host: LocalHost, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several files of one server are written side by side, on a machine where nothing is yet."""
    reached, give = threading.Event(), os.fchown

    def slowly(descriptor: int, uid: int, gid: int) -> None:
        reached.set()
        time.sleep(0.3)
        give(descriptor, uid, gid)

    monkeypatch.setattr(os, "fchown", slowly)
    one, other = (pure(project / "new" / "db1" / name) for name in ("token", "passfile"))
    first = threading.Thread(target=lambda: host.write(one, b"1", mode=0o600))
    first.start()
    assert reached.wait(10)
    host.write(other, b"2", mode=0o600)
    first.join()
    assert host.listing(one.parent) == ["passfile", "token"]


def pure(path: Path) -> PurePosixPath:
    return PurePosixPath(path)


def test_arguments_reach_a_command_as_they_are(host: LocalHost) -> None:
    printed = host.run(["printf", "%s\\0", *NASTY], deadline=10)
    assert printed.split("\0")[:-1] == NASTY


def test_a_command_runs_as_the_servers_account(host: LocalHost) -> None:
    assert host.run(["id", "-un"], deadline=10).strip() == service_account().name == host.account
    groups = host.run(["id", "-G"], deadline=10).split()
    if service_account().switches:
        assert "0" not in groups


def test_a_command_gets_no_environment_of_ours(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "ours")
    monkeypatch.setenv("VAULT_TOKEN", "ours")
    names = {line.partition("=")[0] for line in host.run(["env"], deadline=10, environment={"EXTRA": "1"}).splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "LC_ALL", "TZ", "EXTRA"}


def test_a_command_has_no_input(host: LocalHost) -> None:
    assert host.run(["cat"], deadline=10) == ""


def test_a_command_runs_where_it_is_told(host: LocalHost, root: Path) -> None:
    assert host.run(["pwd"], deadline=10).strip() == "/"
    assert host.run(["pwd"], deadline=10, directory=pure(root)).strip() == str(root)


def test_lines_of_standard_error_as_they_come(host: LocalHost, root: Path) -> None:
    """The command goes on only once its first line was heard."""
    heard = root / "heard"
    heard.unlink(missing_ok=True)
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        heard.touch()

    script = 'echo one >&2; while [ ! -e "$0" ]; do sleep 0.01; done; echo two >&2; echo out'
    assert host.run(["sh", "-c", script, str(heard)], deadline=20, on_line=listen) == "out\n"
    assert lines == ["one", "two"]


def test_much_output_on_both_streams(host: LocalHost) -> None:
    lines: list[str] = []
    script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; echo 0123456789 >&2; i=$((i+1)); done"
    assert len(host.run(["sh", "-c", script], deadline=60, on_line=lines.append)) == 220_000
    assert len(lines) == 20_000


def test_output_without_end_is_not_held(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LARGEST", 1 << 20)
    with pytest.raises(UserError, match=r"^yes on this machine answered with more than 1 MiB: nothing of it was used$"):
        host.run(["yes"], deadline=60)
    lines: list[str] = []
    host.run(["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x >&2"], deadline=60, on_line=lines.append)
    assert max(map(len, lines)) <= answer.LONGEST


def test_a_command_that_fails_says_how_and_why(host: LocalHost) -> None:
    with pytest.raises(CommandFailed, match=r"^sh failed \(status 3\): no such luck$") as failed:
        host.run(["/bin/sh", "-c", "echo no such luck >&2; exit 3"], deadline=10)
    assert (failed.value.status, failed.value.output) == (3, "no such luck\n")


def test_a_command_that_says_nothing(host: LocalHost) -> None:
    with pytest.raises(CommandFailed, match=r"false failed .*it printed nothing"):
        host.run(["false"], deadline=10)


def test_a_command_that_is_not_there(host: LocalHost) -> None:
    with pytest.raises(CommandFailed, match="no-such-command") as failed:
        host.run(["/no-such-command"], deadline=10)
    assert failed.value.status == 127


def test_a_command_ended_by_a_signal(host: LocalHost) -> None:
    with pytest.raises(CommandFailed) as failed:
        host.run(["sh", "-c", "kill -TERM $$"], deadline=10)
    assert failed.value.status in {-signal.SIGTERM, 128 + signal.SIGTERM}


FAMILY = 'sleep 1000 & echo $! >"$0.child"; echo $$ >"$0.parent"; sleep 1000'


def family(mark: Path) -> list[psutil.Process]:
    """The command of FAMILY and its child, once both have told their pids."""
    files = [mark.with_name(f"{mark.name}.{who}") for who in ("child", "parent")]
    assert until(lambda: all(file.exists() and file.read_text().strip() for file in files), seconds=20)
    return [psutil.Process(int(file.read_text())) for file in files]


def test_a_missed_deadline_ends_the_whole_group(host: LocalHost, root: Path) -> None:
    mark = root / "late"
    with pytest.raises(CommandFailed, match=r"it did not end within 1\.5 s"):
        host.run(["sh", "-c", FAMILY, str(mark)], deadline=1.5)
    pids = [int((root / f"late.{who}").read_text()) for who in ("child", "parent")]
    assert until(lambda: not any(map(pid_lives, pids)), seconds=5)


CALLER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
from tde_replication.hosts.local import LocalHost
LocalHost().run(["sh", "-c", sys.argv[1], sys.argv[2]], deadline=1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_when_the_caller_is_killed_the_whole_group_ends(root: Path, number: signal.Signals) -> None:
    mark = root / f"orphan-{number.name}"
    caller = subprocess.Popen([sys.executable, "-c", CALLER, FAMILY, str(mark)], cwd=PROJECT, stderr=subprocess.DEVNULL)
    processes = family(mark)
    caller.send_signal(number)
    caller.wait()
    assert until(lambda: not any(map(lives, processes)), seconds=5)


def test_a_command_leaves_nothing_running(host: LocalHost) -> None:
    """Its supervisor and watcher go with it."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    threads = threading.active_count()
    host.run(["true"], deadline=1000)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert until(lambda: threading.active_count() <= threads, seconds=10)


def test_a_disk_that_is_full_is_told_in_a_sentence(host: LocalHost, root: Path) -> None:
    disk = root / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", disk], check=False).returncode:
        pytest.skip("this account may not mount a small file system: a full disk was NOT tested")
    try:
        host.write(pure(disk / "file"), b"old", mode=0o600)
        with pytest.raises(UserError, match=rf"^{disk}/file: No space left on device$"):
            host.write(pure(disk / "file"), b"x" * 2**20, mode=0o600)
        assert host.listing(pure(disk)) == ["file"]
        assert host.read(pure(disk / "file")) == b"old"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_write_and_read(host: LocalHost, root: Path) -> None:
    path = pure(root / "new" / "er" / "file $x")
    host.write(path, b"\0binary\xff", mode=0o640)
    assert host.read(path) == b"\0binary\xff"
    status = host.status(path)
    assert status is not None
    assert (status.kind, status.owner, status.mode) == ("file", host.account, 0o640)
    above = host.status(path.parent)
    assert above is not None
    assert (above.kind, above.owner, above.mode) == ("directory", host.account, 0o700)
    assert host.listing(path.parent) == ["file $x"]


def test_written_files_never_have_wider_rights_than_asked_for(host: LocalHost, root: Path) -> None:
    old = os.umask(0)
    try:
        host.write(pure(root / "private"), b"x", mode=0o600)
    finally:
        os.umask(old)
    assert stat.S_IMODE((root / "private").stat().st_mode) == 0o600


def test_a_file_is_replaced_whole(host: LocalHost, root: Path) -> None:
    """Whoever has it open goes on reading what it was."""
    path = root / "whole"
    host.write(pure(path), b"before", mode=0o600)
    with path.open("rb") as reader:
        host.write(pure(path), b"after", mode=0o600)
        assert reader.read() == b"before"
    assert path.read_bytes() == b"after"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(host: LocalHost, root: Path) -> None:
    path = root / "draft" / "file"
    host.write(pure(path), b"before", mode=0o600)
    ended = host._alone(scripts.WRITE, str(path), "10", "600", content=b"less", deadline=10)
    assert (ended.status, ended.cause) == (1, "only a part of it arrived")
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_link_in_the_place_of_a_file_is_not_followed(host: LocalHost, root: Path) -> None:
    target = root / "target"
    target.write_bytes(b"precious")
    link = root / "link"
    link.symlink_to(target)
    host.write(pure(link), b"mine", mode=0o600)
    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root owns what its servers' account does not")


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file of root's, which the servers' account may neither read nor write."""
    made = Path(tempfile.mkdtemp(dir="/tmp")) / "secret"
    made.write_bytes(b"root's")
    made.chmod(0o600)
    yield made
    shutil.rmtree(made.parent)


@AS_ROOT
def test_roots_files_are_not_read_or_changed_by_a_link(host: LocalHost, root: Path, secret: Path) -> None:
    """The account owns the directory, and puts links to what it may not read in the place of its files."""
    before = secret.stat()
    link = root / "pg_hba.conf"
    link.symlink_to(secret)
    hard = root / "hard"
    hard.hardlink_to(secret)
    for path in (link, hard):
        with pytest.raises(UserError):
            host.read(pure(path))
        with pytest.raises(UserError):
            host.replace(pure(path), b"ours")
    host.remove(pure(link))
    host.remove(pure(hard))
    assert secret.read_bytes() == b"root's"
    assert (secret.stat().st_uid, secret.stat().st_mode) == (before.st_uid, before.st_mode)


@AS_ROOT
@pytest.mark.parametrize("below", ["", "data"])
def test_no_directory_is_made_by_a_link_of_the_account(host: LocalHost, root: Path, below: str) -> None:
    victim = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        (root / f"way {below}").symlink_to(victim)
        with suppress(UserError):
            host.make_directory(pure(root / f"way {below}" / "new" / below))
        assert not list(victim.iterdir())
    finally:
        shutil.rmtree(victim)


@AS_ROOT
def test_a_directory_that_is_exchanged_for_a_link_changes_nobodys_owner(
    host: LocalHost, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, path = project / "victim", project / "exchanged"
    victim.mkdir(mode=0o700)
    mkdir = os.mkdir

    def exchange(name: str, mode: int, dir_fd: int) -> None:
        if path.name in name:
            path.symlink_to(victim)
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", exchange)
    with pytest.raises(OSError, match="exchanged"):
        host.make_directory(pure(path))
    assert (victim.stat().st_uid, stat.S_IMODE(victim.stat().st_mode)) == (0, 0o700)


@AS_ROOT
def test_no_process_of_others_is_ended_that_the_account_names(host: LocalHost, root: Path) -> None:
    """A link in the place of the data directory makes it the working directory of a process of root's."""
    victim = subprocess.Popen(["sleep", "60"], cwd="/usr")
    try:
        data = root / "named"
        data.symlink_to("/usr")
        named = Postmaster(victim.pid, 0, "", ready=False)
        host._execute(scripts.SIGNAL, str(named.pid), str(data), "KILL")
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


@AS_ROOT
def test_nothing_of_others_is_removed_by_what_a_lock_file_says(host: LocalHost, root: Path, secret: Path) -> None:
    """What postmaster.pid and a socket's lock file say of port and directory may be anything."""
    data = root / "crafted"
    lock = root / "locks" / ".s.PGSQL.x" / f"..{secret.parent}"
    host.make_directory(pure(lock.parent))
    host.write(pure(root / "locks" / ".s.PGSQL.1.lock"), f"1\n{data}\n".encode(), mode=0o600)
    for port in (f"x/../../..{secret.parent}", "1", "1\n/"):
        content = f"99999999\n{data}\n0\n{port}\n{root / 'locks'}\n"
        host.write(pure(data / "postmaster.pid"), content.encode(), mode=0o600)
        host.stop(pure(root), pure(data), deadline=1)
        assert secret.exists()


@pytest.mark.parametrize("kind", ["link", "fifo", "huge"])
def test_only_regular_files_of_a_sensible_size_are_read(host: LocalHost, root: Path, kind: str) -> None:
    data = root / f"odd {kind}"
    host.make_directory(pure(data))
    path = data / "postmaster.pid"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(2**34)
    with pytest.raises(UserError):
        host.read(pure(path))
    if kind == "huge":
        assert host.postmaster(pure(data)) is None
        return
    with pytest.raises(Conflict, match="is a link or a device"):
        host.read(pure(path))
    with pytest.raises(Unavailable, match="cannot tell whether a server runs on"):
        host.postmaster(pure(data))
    with pytest.raises(Unavailable):
        host.stop(pure(root), pure(data), deadline=1)


@pytest.mark.parametrize("place", ["link", "fifo"])
def test_a_log_that_is_none_is_not_written_or_read(host: LocalHost, root: Path, place: str) -> None:
    victim, data = root / "precious log", root / f"log {place}" / "data"
    victim.write_bytes(b"")
    host.make_directory(pure(data))
    log = data.with_name("postgresql.log")
    if place == "link":
        log.symlink_to(victim)
    else:
        os.mkfifo(log)
    with pytest.raises(Conflict, match="is a link or a device"):
        host.start(pure(root), pure(data))
    with pytest.raises(Conflict, match="is a link or a device"):
        host.log_since(pure(data), 0)
    assert victim.read_bytes() == b""


def test_a_shell_that_hangs_or_ends_is_told_and_another_takes_its_place(host: LocalHost) -> None:
    with pytest.raises(Unavailable, match=r"did not answer .* within 0\.5 s"):
        host._execute("sleep 100", deadline=0.5)
    with pytest.raises(Unavailable, match="has ended unexpectedly"):
        host._execute("kill -KILL $$; sleep 1")
    assert host._execute('printf %s "$1"', "it's\nhere").output == b"it's\nhere"


def test_what_is_not_there(host: LocalHost, root: Path) -> None:
    for nowhere in (pure(root / "nowhere"), pure(root / "private" / "below a file")):
        assert host.read(nowhere) is None
        assert host.status(nowhere) is None
        assert host.listing(nowhere) == []
        host.remove(nowhere)


@AS_ROOT
def test_what_is_another_accounts_is_told_in_a_sentence(host: LocalHost, root: Path) -> None:
    closed = root / "closed"
    closed.mkdir()
    closed.chmod(0)
    for ask in (host.read, host.status, host.listing, host.remove, host.make_directory):
        with pytest.raises(UserError, match=f"closed/data: {host.account} has no permission there"):
            ask(pure(closed / "data"))
    with pytest.raises(UserError, match=f"{closed}: {host.account} has no permission there"):
        host.listing(pure(closed))
    with pytest.raises(Unavailable, match="cannot tell whether a server runs on"):
        host.postmaster(pure(closed))


def test_rename_refuses_what_is_there(host: LocalHost, root: Path) -> None:
    host.write(pure(root / "r" / "old"), b"old", mode=0o600)
    host.write(pure(root / "r" / "new"), b"new", mode=0o600)
    with pytest.raises(UserError, match="it exists already"):
        host.rename(pure(root / "r" / "old"), pure(root / "r" / "new"))
    assert host.read(pure(root / "r" / "new")) == b"new"
    host.rename(pure(root / "r" / "old"), pure(root / "r" / "third"))
    assert host.listing(pure(root / "r")) == ["new", "third"]


def test_rename_refuses_a_link_that_points_nowhere(host: LocalHost, root: Path) -> None:
    host.write(pure(root / "l" / "old"), b"old", mode=0o600)
    (root / "l" / "new").symlink_to("nowhere")
    with pytest.raises(UserError, match="it exists already"):
        host.rename(pure(root / "l" / "old"), pure(root / "l" / "new"))
    assert (root / "l" / "new").is_symlink()


def test_what_is_removed_takes_the_empty_directories_above_it_along(host: LocalHost, project: Path) -> None:
    one, other = project / ".local" / "s" / "db1" / "f", project / ".local" / "s" / "db2" / "f"
    host.write(pure(one), b"", mode=0o600)
    host.write(pure(other), b"", mode=0o600)
    host.remove(pure(one))
    assert not one.parent.exists()
    assert other.exists()
    host.remove(pure(other))
    assert not (project / ".local").exists()
    assert project.exists()


def test_nothing_is_pruned_outside_the_projects_root(host: LocalHost, project: Path) -> None:
    elsewhere = project / "srv" / "pg" / "f"
    host.write(pure(elsewhere), b"", mode=0o600)
    host.remove(pure(elsewhere))
    assert elsewhere.parent.is_dir()


def test_a_removal_that_finds_nothing_leaves_the_directory_above(host: LocalHost, project: Path) -> None:
    """Another resource may have made it just now, for a file of its own."""
    above = project / ".local" / "stack" / "db1"
    host.make_directory(PurePosixPath(above))
    host.remove(PurePosixPath(above / ".data.unfinished"))
    assert above.is_dir()


def test_a_link_to_a_directory_is_removed_and_not_what_it_points_to(host: LocalHost, root: Path) -> None:
    kept = root / "kept"
    host.write(pure(kept / "f"), b"", mode=0o600)
    (root / "way").symlink_to(kept)
    host.remove(pure(root / "way"))
    assert (kept / "f").exists()


def test_a_tree_is_removed_whole(host: LocalHost, root: Path) -> None:
    host.write(pure(root / "tree" / "a" / "b"), b"", mode=0o600)
    host.remove(pure(root / "tree"))
    assert not (root / "tree").exists()


def test_directories_on_the_way_can_be_passed_but_not_read(host: LocalHost, root: Path) -> None:
    host.make_directory(pure(root / "way in" / "inner"))
    inner = host.status(pure(root / "way in" / "inner"))
    assert inner is not None
    assert (inner.owner, inner.mode) == (host.account, 0o700)
    assert host.run(["test", "-x", str(root / "way in" / "inner")], deadline=10) == ""
    host.make_directory(pure(root / "way in" / "inner"))


def test_owners_are_told_by_name(host: LocalHost, root: Path) -> None:
    (root / "mine").touch()
    status = host.status(pure(root / "mine"))
    assert status is not None
    assert status.owner == pwd.getpwuid(os.geteuid()).pw_name


@pytest.mark.parametrize("content", [b"", b"12", b"not a pid\n/d\n0\n1\n/tmp\n", b"99999999\n/d\n0\n1\n/tmp\n"])
def test_a_stale_postmaster_file_is_no_server(host: LocalHost, root: Path, content: bytes) -> None:
    data = pure(root / "stale")
    host.write(data / "postmaster.pid", content, mode=0o600)
    assert host.postmaster(data) is None
    with pytest.raises(Unavailable, match="no server runs on"):
        host.connect(data, "postgres")
    host.stop(pure(root), data, deadline=1)


def test_a_recycled_pid_is_no_server(host: LocalHost, root: Path) -> None:
    """The pid is of a process that lives, but not in the data directory."""
    data = pure(root / "recycled")
    host.write(data / "postmaster.pid", f"{os.getpid()}\n{data}\n0\n5432\n/tmp\n".encode(), mode=0o600)
    assert host.postmaster(data) is None


@pytest.mark.parametrize("parent", ["/srv/a b/it's", "/srv/db1"])
def test_a_socket_lies_beside_the_data(parent: str) -> None:
    assert local.socket_directory(PurePosixPath(parent) / "data") == PurePosixPath(parent)


@pytest.mark.parametrize("parent", ["/srv/" + "x" * 100, "/srv/a,b", '/srv/a"b', "/srv/a "])
def test_a_socket_that_cannot_lie_there_lies_in_a_short_directory_of_the_accounts(
    host: LocalHost, root: Path, monkeypatch: pytest.MonkeyPatch, parent: str
) -> None:
    sockets = local.socket_directory(PurePosixPath(parent) / "data")
    assert len(str(sockets)) < 50
    assert sockets != local.socket_directory(PurePosixPath(parent) / "other")
    monkeypatch.setattr(local, "socket_directory", lambda _: sockets)
    data = pure(root / "elsewhere" / "data")
    program = pure(root / "programs")
    host.write(program / "postgres", b"#!/bin/sh\n", mode=0o700)
    try:
        host.start(program, data)
        made = host.status(sockets)
        assert made
        assert (made.kind, made.owner, made.mode) == ("directory", host.account, 0o700)
        host.stop(program, data, deadline=1)
        assert host.status(sockets) is None
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


@AS_ROOT
def test_a_socket_directory_that_a_stranger_made_first_is_refused(
    host: LocalHost, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(sockets, 1, 1)
    monkeypatch.setattr(local, "socket_directory", lambda _: pure(sockets))
    try:
        with pytest.raises(UserError, match=f"{sockets}: it is not the account's own, with mode 0700"):
            host.start(pure(root), pure(root / "elsewhere" / "data"))
    finally:
        shutil.rmtree(sockets)


def test_what_a_killed_server_left_of_its_socket_goes_without_its_data_too(host: LocalHost, root: Path) -> None:
    data = pure(root / "swept" / "data")
    own, other = (data.parent / f".s.PGSQL.{port}" for port in (5001, 5002))
    for socket, whose in ((own, data), (other, data.with_name("other"))):
        host.write(socket, b"", mode=0o600)
        host.write(socket.with_name(f"{socket.name}.lock"), f"99999999\n{whose}\n".encode(), mode=0o600)
    # A FIFO would never answer; the account itself may put one there.
    host.run(["mkfifo", str(data.parent / ".s.PGSQL.5003.lock")], deadline=10)
    host.stop(pure(root), data, deadline=1)
    assert host.listing(data.parent) == [other.name, f"{other.name}.lock", ".s.PGSQL.5003.lock"]
