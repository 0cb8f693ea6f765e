"""The ssh kind of host, where an sshd of the tests' own on a loopback port is enough."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from bootstrap.ports import free_ports
from tde_replication import hosts
from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts import answer, file_scripts
from tde_replication.hosts.ssh import connections as ssh_connections, login, openssh, sudo
from tde_replication.hosts.ssh.login import Login, connection_settings, known_host_keys
from tde_replication.hosts.ssh.machine import SshHost
from tde_replication.hosts.ssh.private_directory import control
from tde_replication.waiting import until
from tests.ssh.sshd import MISSING, Sshd, generate

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"SSH TESTS DID NOT RUN: {MISSING}")
PASSWD = PurePosixPath("/etc/passwd")


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tde-sshd-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def sshd(home: Path) -> Iterator[Sshd]:
    daemon = Sshd(home).start()
    yield daemon
    daemon.stop()


def host(login: Login) -> SshHost:
    return SshHost(login.address(unit="none"))


def works(login: Login) -> bool:
    return host(login).run(["/bin/echo", "$(id) it's"], deadline=20) == "$(id) it's\n"


def masters() -> set[str]:
    return {path.name for path in control().iterdir() if path.is_socket()}


@pytest.fixture(autouse=True)
def end_masters() -> Iterator[None]:
    """A test's connections end with it: another's sshd may get the same port."""
    before = masters()
    yield
    for name in masters() - before:
        subprocess.run(["ssh", "-O", "exit", "-S", control() / name, "x"], capture_output=True, check=False)


# Addresses


LOGINS = [
    Login("db1.example.net"),
    Login("DB1", 2222, "deploy", "postgres"),
    Login("::1", 22, "o'hara", key="~/.ssh/id rsa", known_hosts="stacks/known_hosts"),
    Login("db1", None, None, "pg", "/k%20/&?#=é", "/c+d", None, ("ops@b1:2222", "[::1]:22", "b3")),
    Login("db1", host_keys=("ssh-ed25519 AAAA+/==", "[b1]:2222,b3 ssh-rsa AAAA", "|1|x+/=|y= ssh-rsa AAAA")),
]


@pytest.mark.parametrize("login", LOGINS, ids=str)
def test_an_address_is_read_as_it_was_written(login: Login) -> None:
    assert Login.parse(login.address(unit="postgresql@18-main")) == (login, {"unit": "postgresql@18-main"})


def test_another_way_to_a_machine_is_the_same_place(home: Path) -> None:
    one = Login("db1", None, "deploy", key="~/.ssh/mine")
    assert same_place(one, Login("DB1", 22, "ops", jump=("bastion",)))
    assert not same_place(one, Login("db2"))
    assert not same_place(one, Login("db1", 2222))
    assert not hosts.host(one.address(unit="x")).is_same_place(hosts.host("local"))
    # By its host key, under another name and port; names that nobody knows are of no machine.
    keys = [public_key(home / name) for name in ("host1", "host2")]
    known = home / "known"
    known.write_text(f"db1,[192.0.2.7]:2222 {keys[0]}\ndb2 {keys[1]}\n")
    here = replace(one, known_hosts=str(known))
    assert same_place(here, replace(here, host="192.0.2.7", port=2222))
    assert not same_place(here, replace(here, host="192.0.2.7"))
    assert not same_place(here, replace(here, host="db2"))
    assert not same_place(replace(here, host="db3"), replace(here, host="db4"))


def same_place(one: Login, other: Login) -> bool:
    return hosts.host(one.address(unit="x")).is_same_place(hosts.host(other.address(unit="x")))


def public_key(path: Path) -> str:
    generate(path)
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


# Whom to believe, and who is let in


def test_a_host_whose_key_is_not_known_is_refused(sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    with pytest.raises(UserError, match=r"host key of .* is not in known_hosts: nothing was sent") as caught:
        host(sshd.login()).status(PASSWD)
    assert not isinstance(caught.value, Unavailable)
    assert "Accepted" not in sshd.log


def test_a_key_of_its_own_is_all_that_counts(sshd: Sshd, home: Path) -> None:
    """Whatever known_hosts has for its name: an address may have been another machine's before."""
    right, other = " ".join((home / "host.pub").read_text().split()[:2]), public_key(home / "other")
    believed = sshd.login(host_keys=(other,))
    with pytest.raises(UserError, match=r"shows another host key|is not in known_hosts"):
        works(believed)
    assert "Accepted" not in sshd.log
    sshd.known_hosts.write_text(f"[{sshd.address}]:{sshd.port} {other}\n")
    login = sshd.login(host_keys=(other, right))
    assert works(login)
    assert right in known_host_keys(connection_settings(sshd.login(host_keys=(right,)))).values()  # for pulumi-command


def test_a_line_with_names_stands_beside_known_hosts(sshd: Sshd, home: Path) -> None:
    """Of the way, too; and a machine's own key is not its jump host's."""
    (home / "b").mkdir()
    bastion = Sshd(home / "b")
    bastion.make_keys()
    shutil.copy(home / "authorized", bastion.home / "authorized")
    bastion.start()
    own = " ".join((home / "host.pub").read_text().split()[:2])
    line = bastion.known_hosts.read_text().strip()
    jump = (f"{getpass.getuser()}@127.0.0.1:{bastion.port}",)
    try:
        with pytest.raises(UserError, match=r"on the way to .*: the host key of .* is not in known_hosts"):
            works(sshd.login(jump=jump, host_keys=(own,)))
        assert works(sshd.login(jump=jump, host_keys=(line,)))
        sshd.known_hosts.write_text("")
        assert works(sshd.login(jump=jump, host_keys=(own, line), port=sshd.port))
    finally:
        bastion.stop()


def test_a_changed_host_key_is_refused(sshd: Sshd, home: Path) -> None:
    generate(home / "other")
    key = (home / "other.pub").read_text().split()[:2]
    sshd.known_hosts.write_text(f"[{sshd.address}]:{sshd.port} {' '.join(key)}\n")
    with pytest.raises(UserError, match="shows another host key than the one known for it: nothing was sent") as caught:
        host(sshd.login()).status(PASSWD)
    assert not isinstance(caught.value, Unavailable)
    assert "\n" not in str(caught.value)
    assert "Accepted" not in sshd.log


def test_a_key_that_is_not_accepted(sshd: Sshd, home: Path) -> None:
    generate(home / "stranger")
    with pytest.raises(UserError, match=f"denies access to {getpass.getuser()} \\(publickey") as caught:
        host(sshd.login(key=str(home / "stranger"))).status(PASSWD)
    assert not isinstance(caught.value, Unavailable)


def test_a_key_of_the_agent(sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", home / "agent"], stdout=subprocess.DEVNULL)
    try:
        assert until((home / "agent").exists, seconds=5)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
        subprocess.run(["ssh-add", "-q", sshd.key], check=True)
        sshd.key.rename(home / "gone")
        assert works(sshd.login(key=None))
    finally:
        agent.terminate()
        agent.wait()


def test_a_certificate(home: Path) -> None:
    generate(home / "ca")
    daemon = Sshd(home, {"TrustedUserCAKeys": str(home / "ca.pub"), "AuthorizedKeysFile": "none"})
    daemon.make_keys()
    command = ["ssh-keygen", "-q", "-s", f"{home}/ca", "-I", "tests", "-n", getpass.getuser(), f"{home}/id.pub"]
    subprocess.run(command, check=True)
    (home / "id-cert.pub").rename(home / "certificate")
    daemon.start()
    try:
        with pytest.raises(UserError, match="denies access to"):
            host(daemon.login()).status(PASSWD)
        assert works(daemon.login(certificate=str(home / "certificate")))
    finally:
        daemon.stop()


def test_paths_with_spaces_and_percents(home: Path) -> None:
    daemon = Sshd(home).start()
    odd = home / "a %h b"
    odd.mkdir()
    daemon.key.rename(odd / "id")
    daemon.known_hosts.rename(odd / "known")
    try:
        assert works(daemon.login(key=str(odd / "id"), known_hosts=str(odd / "known")))
    finally:
        daemon.stop()


# Ways


def test_ipv6(home: Path) -> None:
    daemon = Sshd(home, address="::1").start()
    try:
        login = daemon.login()
        assert works(login)
        assert f"[::1]:{daemon.port}" in login.address()
    finally:
        daemon.stop()


@pytest.mark.parametrize("hops", [1, 2])
def test_jump_hosts(sshd: Sshd, home: Path, hops: int) -> None:
    bastions = []
    for number in range(hops):
        (home / f"b{number}").mkdir()
        bastion = Sshd(home / f"b{number}")
        bastion.make_keys()
        shutil.copy(home / "authorized", bastion.home / "authorized")
        bastions.append(bastion.start())
        with sshd.known_hosts.open("a") as known:
            known.write(bastion.known_hosts.read_text())
    try:
        jump = tuple(f"{getpass.getuser()}@127.0.0.1:{bastion.port}" for bastion in bastions)
        assert works(sshd.login(jump=jump))
        for bastion in bastions:
            assert "Accepted publickey" in bastion.log
        last = bastions[-1].known_hosts.read_text()
        sshd.known_hosts.write_text(sshd.known_hosts.read_text().replace(last, ""))
        # Another user is another connection, so that the hop is asked again.
        with pytest.raises(
            UserError, match=f"on the way to .*: the host key of 127.0.0.1:{bastions[-1].port} is not in known_hosts"
        ):
            host(sshd.login(jump=jump, user="nobody")).status(PASSWD)
    finally:
        for bastion in bastions:
            bastion.stop()


# Failing


def test_nobody_listens(home: Path) -> None:
    (home / "known_hosts").write_text("")
    login = Login("127.0.0.1", free_ports(1)[0], known_hosts=str(home / "known_hosts"))
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"cannot be reached: .*Connection refused"):
        host(login).status(PASSWD)
    assert time.monotonic() - started < 5


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(Unavailable, match=r"no-such-host\.invalid cannot be reached: .*resolve"):
        host(Login("no-such-host.invalid")).status(PASSWD)


def test_a_machine_without_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    made: list[str] = []
    make = tempfile.mkdtemp

    def recorded(**names: str) -> str:
        made.append(make(**names))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", recorded)
    for ask in (lambda: host(Login("db1")).status(PASSWD), lambda: host(Login("db1")).connect(PASSWD, "postgres")):
        with pytest.raises(UserError, match="there is no ssh on this machine"):
            ask()
    assert made
    assert not Path(made[0]).exists()


@contextmanager
def listener(banner: bytes) -> Iterator[int]:
    """Something that takes connections, says `banner`, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                caller.sendall(banner)
                taken.append(caller)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        for caller in taken:
            caller.close()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("banner", [b"", b"SSH-2.0-slow\r\n"], ids=["silent", "stuck"])
def test_an_sshd_that_does_not_get_on(banner: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(login.OPTIONS, "ConnectTimeout", "1")
    monkeypatch.setitem(login.OPTIONS, "ServerAliveInterval", "1")
    monkeypatch.setitem(login.OPTIONS, "ServerAliveCountMax", "1")
    with listener(banner) as port, pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        host(Login("127.0.0.1", port)).status(PASSWD)


def test_a_deadline_counts_from_the_call() -> None:
    with listener(b"") as port:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer within 1 s"):
            host(Login("127.0.0.1", port))._execute("true", deadline=1.0)
        assert time.monotonic() - started < 4


def test_an_sshd_that_drops_a_connection_in_a_command(sshd: Sshd, home: Path) -> None:
    target = host(sshd.login())
    script = 'echo "$$" >"$1/pid"; exec sleep 300'

    def drop() -> None:
        assert until(lambda: (home / "pid").exists() and bool((home / "pid").read_text()), seconds=20)
        for child in sessions(sshd):
            os.kill(child, 9)

    thread = threading.Thread(target=drop)
    thread.start()
    with pytest.raises(Unavailable, match=r"the connection to .* broke while a command ran"):
        target.run(["/bin/sh", "-c", script, "sh", str(home)], deadline=60)
    thread.join()
    pid = int((home / "pid").read_text())
    assert until(lambda: not Path(f"/proc/{pid}").exists(), seconds=10)
    assert works(sshd.login())  # and the next one connects again


def sessions(sshd: Sshd) -> list[int]:
    """The processes of an sshd that serve connections."""
    assert sshd.process
    return [int(pid) for pid in Path(f"/proc/{sshd.process.pid}/task/{sshd.process.pid}/children").read_text().split()]


def test_a_write_that_arrives_in_part_is_not_put_in_place(sshd: Sshd, home: Path) -> None:
    target = host(sshd.login())
    ended = target._execute(file_scripts.WRITE, str(home / "file"), "10", "600", content=b"half")
    assert ended.status == 1
    assert "only a part of it arrived" in ended.errors
    assert not list(home.glob("*file*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs an account besides the tests' own")
def test_an_account_that_is_not_there(sshd: Sshd) -> None:
    with pytest.raises(UserError, match="there is no account nosuchaccount on 127"):
        host(sshd.login("nosuchaccount")).status(PASSWD)


# Noise


NOISE = "echo to stdout; echo to stderr >&2; printf 'no end of line'; printf 'nor here' >&2; "


def test_what_a_login_prints_is_left_out(home: Path) -> None:
    banner = home / "banner"
    banner.write_text("AUTHORIZED USE ONLY\nPermission denied (to all) \n" * 20)
    daemon = Sshd(home, {"ForceCommand": NOISE + 'eval "$SSH_ORIGINAL_COMMAND"', "Banner": str(banner)}).start()
    try:
        target = host(daemon.login())
        assert works(daemon.login())
        assert target.read(home / "authorized") == (home / "authorized").read_bytes()  # type: ignore[arg-type]
        assert target.read(PurePosixPath("/no/such")) is None
        with pytest.raises(CommandFailed) as caught:
            target.run(["/bin/sh", "-c", "echo mine >&2; exit 3"], deadline=20)
        assert caught.value.output == "mine\n"
    finally:
        daemon.stop()


def test_a_login_that_runs_no_commands(home: Path) -> None:
    daemon = Sshd(home, {"ForceCommand": "echo 'This account is currently not available.' >&2; exit 1"}).start()
    try:
        with pytest.raises(UserError, match=r"runs no commands \(status 1\): This account is currently not available"):
            host(daemon.login()).status(PASSWD)
    finally:
        daemon.stop()


# Sharing


def test_one_connection_serves_all_commands(sshd: Sshd) -> None:
    target = host(sshd.login())
    for _ in range(4):
        assert target.status(PASSWD)
    assert sshd.log.count("Accepted publickey") == 1


def test_a_connection_ends_by_itself(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connections, "IDLE_SECONDS", 3)
    before = masters()
    assert works(sshd.login())
    assert masters() - before
    assert until(lambda: masters() <= before, seconds=30)
    assert until(lambda: not sessions(sshd), seconds=30)


def test_a_control_directory_of_somebody_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    control().chmod(0o755)
    with pytest.raises(UserError, match="is not owned by this user alone"):
        control()


def test_secrets_of_the_project_are_not_in_ssh_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "s.secret")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "secret")
    assert not {"VAULT_TOKEN", "PULUMI_CONFIG_PASSPHRASE"} & login.environment().keys()


def test_contents_are_in_no_argument_list(sshd: Sshd, home: Path) -> None:
    """Not here, and not there: all sshd and its children get to see is one constant command."""
    target = host(sshd.login())
    target.write(PurePosixPath(home) / "token", b"s.topsecret", mode=0o600)
    seen: list[str] = []

    def look(line: str) -> None:
        assert line == "now"
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(process.read_bytes().decode(errors="replace"))
            except OSError:
                continue

    script = "echo now >&2; sleep 3"
    target.run(["/bin/sh", "-c", script], deadline=20, environment={"A": "b"}, on_line=look)
    remote = [line for line in seen if "read -r line" in line and line.startswith("ssh\0")]
    assert remote
    assert not [line for line in remote if "echo now" in line]


# Distance


class Distance:
    """A way to an sshd that takes a moment in each direction, and counts how often one waits for the other."""

    MOMENT = 0.05

    def __init__(self, port: int) -> None:
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.turns: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def round_trips(self) -> int:
        return "".join(self.turns).count("there")

    def _serve(self) -> None:
        try:
            near, _ = self._server.accept()
        except OSError:
            return
        far = socket.create_connection(("127.0.0.1", self._port))
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, target, way in ((near, far, "there"), (far, near, "back")):
            threading.Thread(target=self._carry, args=(source, target, way), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with source, target, suppress(OSError):
            while piece := source.recv(65536):
                time.sleep(self.MOMENT)  # what is sent without waiting for an answer is gathered meanwhile
                if self.turns[-1:] != [way]:
                    self.turns.append(way)
                target.sendall(piece)

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def test_an_operation_costs_two_round_trips(sshd: Sshd, home: Path) -> None:
    """One opens a session; the command goes together with the script and what it reads. The end needs no answer."""
    distance = Distance(sshd.port)
    key = " ".join((home / "host.pub").read_text().split()[:2])
    sshd.known_hosts.write_text(f"[127.0.0.1]:{distance.port} {key}\n")
    far = host(sshd.login(port=distance.port))
    path = PurePosixPath(home) / "file"
    operations: list[Callable[[], object]] = [
        lambda: far.status(PASSWD),
        lambda: far.read(PASSWD),
        lambda: far.listing(PASSWD.parent),
        lambda: far.write(path, b"x" * 10_000, mode=0o600),
        lambda: far.rename(path, path.with_name("renamed")),
        lambda: far.remove(path.with_name("renamed")),
        lambda: far.postmaster(path),
        lambda: far.run(["/bin/true"], deadline=20),
    ]
    try:
        assert far.status(PASSWD)
        counted: list[list[int]] = [[] for _ in operations]
        for _ in range(3):  # a busy machine may part what goes at once
            for counts, operation in zip(counted, operations, strict=True):
                time.sleep(4 * Distance.MOMENT)  # the last one's close is still on its way
                distance.turns.clear()
                operation()
                counts.append(distance.round_trips)
        assert {min(counts) for counts in counted} <= {2, 3}, counted
    finally:
        distance.close()


# A machine that a password for sudo is bound to


def test_one_with_a_password_is_believed_by_the_key_beside_it_alone(
    sshd: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, other = sshd.known_hosts.read_text().split(" ", 1)[1].strip(), public_key(home / "other")
    name = f"[{sshd.address}]:{sshd.port}"
    login = sshd.login()
    assert works(login)
    ssh_connections.connections.cache_clear()  # as in another process
    monkeypatch.setenv(sudo.ENVIRONMENT, json.dumps({f"{name} {other}": "password"}))
    with pytest.raises(
        UserError, match="nothing was sent"
    ):  # though the file that the stack names has the machine's key
        works(login)
    sshd.known_hosts.write_text(f"{name} {other}\n")
    ssh_connections.connections.cache_clear()
    monkeypatch.setenv(sudo.ENVIRONMENT, json.dumps({f"{name} {right}": "password"}))
    assert works(login)
    assert known_host_keys(connection_settings(login)) == {"ssh-ed25519": right}  # which pulumi-command is given


# A machine that was taken over


def test_an_answer_without_end_is_not_held(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LARGEST", 1 << 20)
    with pytest.raises(UserError, match=r"answered with more than 1 MiB: nothing of it was used"):
        host(sshd.login()).run(["/bin/cat", "/dev/zero"], deadline=30)
    noisy = host(sshd.login()).run(["/bin/sh", "-c", "yes noise | head -n 100000 >&2; echo done"], deadline=60)
    assert noisy == "done\n"


@pytest.mark.parametrize("junk", ["junk", "", "-", "9" * 5000])
def test_a_status_that_is_no_number_is_a_connection_that_broke(junk: str) -> None:
    errors = openssh.Errors("--m--", None)
    for line in ("before\n", "--m--\n", f"--m-- {junk}\n"):
        errors.take(line)
    assert errors.status is None


def test_errors_are_kept_up_to_a_limit() -> None:
    errors = openssh.Errors("--m--", None)
    for _ in range(3000):
        errors.take("x" * answer.LONGEST)
    assert len(errors.before) <= answer.LONGEST
    errors.take("--m--\n")
    for number in range(3000):
        errors.take(f"{number}\n")
    assert len(errors.own) == answer.LINES
    assert errors.own[-1] == "2999\n"
