"""bootstrap.vault, as people and `make` run it: the Vault of a project of its own, in a path with spaces."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bootstrap.vault import Vault
from tde_replication.hosts.account import Account, service_account
from tests.openbao import OpenBao, openbao, private_directory

__all__ = ["openbao"]

SOURCE = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "bootstrap.vault"]


def servers_below(root: Path) -> list[psutil.Process]:
    named = (process for process in psutil.process_iter(["name"]) if process.info["name"] == "bao")
    return [process for process in named if _is_below(root, process)]


def _is_below(root: Path, process: psutil.Process) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(root)
    except psutil.Error:  # another user's, or a dead one that nobody has buried
        return False


class Project:
    """A clone with nothing in it but what bootstrap.vault needs."""

    def __init__(self, root: Path) -> None:
        self.root = root / "a project's own place"
        for package in ("bootstrap", "components"):
            shutil.copytree(SOURCE / package, self.root / package, ignore=shutil.ignore_patterns("__pycache__"))
        self.files = self.root / ".local" / "vault"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run it with its output in a pipe, as `make` may: a server that kept the pipe would keep this waiting.

        And where core dumps are wanted, as on a developer's machine.
        """
        return subprocess.run(
            ["/bin/sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"', "", *COMMAND, command],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    def ok(self, command: str) -> str:
        done = self.run(command)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def servers(self) -> list[psutil.Process]:
        return servers_below(self.root)

    def kill(self) -> None:
        OpenBao(self.root / ".local").kill()

    def client(self) -> Any:
        return OpenBao(self.root / ".local").client()


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    root = private_directory()
    project = Project(root)
    try:
        yield project
    finally:
        project.run("remove")
        shutil.rmtree(root)


@pytest.fixture
def running(project: Project) -> Project:
    OpenBao(project.root / ".local").start()
    return project


def test_nothing_is_said_of_one_that_is_not_made(project: Project) -> None:
    project.ok("remove")
    assert project.ok("env") == ""
    assert project.run("status").returncode == 1
    assert "not running" in project.ok("stop")
    assert not (project.root / ".local").exists()


def test_first_start(project: Project) -> None:
    project.ok("remove")
    said = project.ok("start")

    assert said.startswith("Vault: OpenBao at https://127.0.0.1:")
    assert said.count("\n") == 1
    health = project.client().sys.read_health_status(method="GET")
    assert (health["initialized"], health["sealed"], health["standby"]) == (True, False, False)
    assert project.client().sys.read_leader_status()["ha_enabled"]  # raft, not the dev mode's memory


def test_runs_unprivileged_and_detached_on_the_loopback_alone(running: Project) -> None:
    (server,) = running.servers()
    assert server.uids().effective == service_account().uid
    assert {where.laddr.ip for where in server.net_connections() if where.status == "LISTEN"} == {"127.0.0.1"}
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 ", limits)
    assert os.getsid(server.pid) == server.pid
    opened = {str(Path(f"/proc/{server.pid}/fd/{number}").readlink()) for number in range(3)}
    assert opened == {"/dev/null", str(running.files / "log")}


def test_secrets_are_private_and_the_ca_is_not(running: Project) -> None:
    account = service_account()
    for name, owner, mode in (
        ("root_token", os.geteuid(), 0o600),
        ("recovery_keys", os.geteuid(), 0o600),
        ("seal.key", account.uid, 0o600),
        ("server.key", account.uid, 0o600),
        ("ca.pem", os.geteuid(), 0o644),
    ):
        status = (running.files / name).stat()
        assert (name, status.st_uid, status.st_mode & 0o777) == (name, owner, mode)
    assert account.can_reach(running.files / "ca.pem")
    token = (running.files / "root_token").read_text()
    assert token not in (running.files / "log").read_text()
    assert not any(token in part for server in running.servers() for part in server.cmdline())


def test_started_again_it_goes_on(running: Project) -> None:
    before = [server.pid for server in running.servers()]
    assert "already running" in running.ok("start")
    assert [server.pid for server in running.servers()] == before
    assert "is running" in running.ok("status")


def test_env_is_for_a_shell(running: Project) -> None:
    script = f'{running.ok("env")}printf \'%s\\n\' "$VAULT_ADDR" "$VAULT_CACERT" "$VAULT_TOKEN"'
    shown = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown == [
        OpenBao(running.root / ".local").address,
        str(running.files / "ca.pem"),
        (running.files / "root_token").read_text(),
    ]
    assert all(line.startswith("export VAULT_") and shlex.split(line) for line in running.ok("env").splitlines())


@pytest.mark.parametrize("how", ["stop", "kill", "seal", "freeze"])
def test_opens_itself_with_its_data(running: Project, how: str) -> None:
    address = OpenBao(running.root / ".local").address
    running.client().sys.create_or_update_policy("kept", f'path "{how}" {{ capabilities = ["read"] }}')
    (server,) = running.servers()
    if how == "stop":
        assert running.ok("stop") == "Vault: stopped\n"
        assert not running.servers()
        assert running.run("status").returncode == 1
    elif how == "kill":
        server.kill()
        psutil.wait_procs([server], timeout=5)
    elif how == "seal":
        running.client().sys.seal()
    else:
        server.suspend()

    assert " started in " in running.ok("start")
    assert f'"{how}"' in running.client().sys.read_policy("kept")["data"]["rules"]
    assert OpenBao(running.root / ".local").address == address


def test_two_starts_at_once_make_one(project: Project) -> None:
    project.ok("remove")
    both = [
        subprocess.Popen([*COMMAND, "start"], cwd=project.root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = " ".join(sorted(process.communicate(timeout=40)[0].split("; ")[0] for process in both))
    assert "already running" in said
    assert " made in " in said
    assert len(project.servers()) == 1


def test_a_taken_port_is_named(running: Project) -> None:
    running.kill()
    port = int(OpenBao(running.root / ".local").address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        failed = running.run("start")
    assert failed.returncode == 1
    assert f"{port}: bind: address already in use" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not running.servers()


def test_a_lost_token_is_no_reason_to_start_over(running: Project) -> None:
    token = running.files / "root_token"
    lost = token.rename(running.files / "elsewhere")
    failed = running.run("start")
    lost.rename(token)
    assert failed.returncode == 1
    assert "root_token is missing" in failed.stderr
    assert running.client().is_authenticated()


def test_killed_while_it_was_made(project: Project) -> None:
    project.ok("remove")
    unfinished = project.files.with_name("vault.new")
    with subprocess.Popen([*COMMAND, "start"], cwd=project.root) as making:
        while not (unfinished / "data" / "raft" / "raft.db").exists():
            assert making.poll() is None
            time.sleep(0.01)
        making.send_signal(signal.SIGKILL)
    assert not project.files.exists()
    assert len(project.servers()) == 1  # left behind, and initialised by now or soon

    project.ok("start")
    assert [Path(server.cwd()) for server in project.servers()] == [project.files]
    assert not unfinished.exists()
    assert project.client().is_authenticated()


def test_remove_leaves_nothing_but_others_alone(running: Project, openbao: OpenBao) -> None:
    assert "removed" in running.ok("remove")
    assert not running.servers()
    assert not (running.root / ".local").exists()
    assert "it does not exist" in running.ok("remove")
    assert openbao.client().is_authenticated()


def test_binary_out_of_the_accounts_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    root = private_directory()
    monkeypatch.setattr(Account, "can_reach", lambda _self, _path: False)
    vault = Vault(root, service_account())
    try:
        assert vault.start() == "made"
        (server,) = servers_below(root)
        assert Path(server.exe()) == vault.directory / "bao"
        vault.kill()
        assert not vault.running()
        assert vault.start() == "started"
    finally:
        vault.remove()
    assert not root.exists()
