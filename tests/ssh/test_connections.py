"""Many commands at once on the connections that they share, against an sshd with its default limits, and with harsh ones."""

import getpass
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from tde_replication.errors import CommandFailed, Unavailable
from tde_replication.hosts.ssh import connections as ssh_connections
from tde_replication.hosts.ssh.login import Login
from tde_replication.hosts.ssh.machine import SshHost
from tde_replication.waiting import until
from tests.ssh.sshd import MISSING, Sshd
from tests.ssh.test_ssh import PASSWD, end_masters, home, host, masters, sshd

__all__ = ["end_masters", "home", "sshd"]  # fixtures
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"SSH TESTS DID NOT RUN: {MISSING}")
DEFAULTS = {"MaxStartups": "10:30:100", "MaxSessions": "10"}
"""Of sshd itself, whatever Debian's file says."""
PROJECT = Path(__file__).resolve().parents[2]


@contextmanager
def limited(home: Path, **options: str) -> Iterator[Sshd]:
    daemon = Sshd(home, options).start()
    try:
        yield daemon
    finally:
        daemon.stop()


def at_once(target: SshHost, count: int, command: Sequence[str]) -> list[str]:
    """The outputs of so many commands, all begun at the same moment."""
    ready = threading.Barrier(count)

    def ask(_: int) -> str:
        ready.wait(20)
        return target.run(command, deadline=120)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ask, range(count)))


def logins(daemon: Sshd) -> int:
    return daemon.log.count("Accepted publickey")


def test_many_first_commands_at_once(home: Path) -> None:
    with limited(home, **DEFAULTS) as daemon:
        outputs = at_once(host(daemon.login()), 40, ["/bin/sh", "-c", "sleep 2; echo done"])
        assert outputs == ["done\n"] * 40
        assert logins(daemon) <= 40 / ssh_connections.SESSIONS + 1
        assert "drop connection" not in daemon.log


@pytest.mark.parametrize("sessions", ["1", "3"])
def test_an_sshd_that_takes_fewer_sessions_than_most(home: Path, sessions: str) -> None:
    with limited(home, MaxSessions=sessions, MaxStartups="10:30:100") as daemon:
        assert at_once(host(daemon.login()), 12, ["/bin/sh", "-c", "sleep 1; echo done"]) == ["done\n"] * 12


def test_logins_that_are_refused_for_there_are_too_many(home: Path) -> None:
    """Others keep this sshd busy for a while."""
    with limited(home, MaxStartups="1:100:1", LoginGraceTime="3") as daemon:
        with socket.create_connection((daemon.address, daemon.port)):
            assert host(daemon.login()).status(PASSWD)
        assert "drop connection" in daemon.log


def test_an_sshd_that_takes_no_session_at_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connections, "PATIENCE", 3.0)
    with limited(home, MaxSessions="0") as daemon:
        began = time.monotonic()
        with pytest.raises(
            Unavailable, match=r"takes no more sessions, .*: see MaxSessions and MaxStartups of its sshd"
        ):
            host(daemon.login()).status(PASSWD)
        assert time.monotonic() - began < 20


def test_the_end_of_one_command_ends_no_other(sshd: Sshd) -> None:
    """Also of the very first, which is cut off by its deadline."""
    target = host(sshd.login())
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(target.run, ["/bin/sleep", "30"], deadline=4)
        assert until(lambda: bool(masters()) and logins(sshd) == 1, seconds=20)
        others = [threads.submit(target.run, ["/bin/sh", "-c", "sleep 8; echo done"], deadline=60) for _ in range(3)]
        with pytest.raises(CommandFailed, match="did not end within 4 s"):
            first.result()
        assert [other.result() for other in others] == ["done\n"] * 3
    assert logins(sshd) == 1


OTHER = """
import sys, time
from pathlib import PurePosixPath
from tde_replication.hosts.ssh import SshHost
time.sleep(max(0, float(sys.argv[2]) - time.time()))
print(SshHost(sys.argv[1]).run(["/bin/sh", "-c", "sleep 1; echo done"], deadline=60), end="")
"""


def test_processes_share_a_connection_too(sshd: Sshd) -> None:
    start = str(time.time() + 3)
    command = [sys.executable, "-c", OTHER, sshd.login().address(unit="none"), start]
    children = [subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [child.communicate()[0] for child in children] == ["done\n"] * 3
    assert logins(sshd) == 1


def test_machines_behind_one_jump_host(home: Path) -> None:
    """Twelve logins through one machine at once are more than an sshd takes."""
    (home / "bastion").mkdir()
    with limited(home, **DEFAULTS) as daemon:
        bastion = Sshd(home / "bastion", {"MaxStartups": "5:100:5"})
        bastion.make_keys()
        shutil.copy(home / "authorized", bastion.home / "authorized")
        bastion.start()
        try:
            with daemon.known_hosts.open("a") as known:
                known.write(bastion.known_hosts.read_text())
            hop = f"{getpass.getuser()}@{bastion.address}:{bastion.port}"
            accounts = [host(daemon.login(jump=(hop,), certificate=str(home / f"c{n}"))) for n in range(12)]
            ready = threading.Barrier(len(accounts))

            def ask(target: SshHost) -> bool:
                ready.wait(20)
                return target.status(PurePosixPath("/etc/passwd")) is not None

            with ThreadPoolExecutor(len(accounts)) as threads:
                assert all(threads.map(ask, accounts))
            assert bastion.log.count("Accepted publickey") == len(accounts)
            assert "drop connection" not in bastion.log
        finally:
            bastion.stop()


def test_a_machine_that_goes_on_refusing_holds_up_its_second_question_less() -> None:
    login = Login("db-busy")
    assert ssh_connections.patience(login) == ssh_connections.PATIENCE
    ssh_connections.gave_up(login)
    assert ssh_connections.patience(login) == 0
