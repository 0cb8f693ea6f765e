"""A sudo that asks for the login's password, on a machine booted by systemd."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tde_replication import credentials
from tde_replication.errors import Unavailable, UserError
from tde_replication.hosts.ssh import connections, openssh, scripts, sudo
from tde_replication.hosts.ssh.machine import SshHost
from tde_replication.waiting import until
from tests.engine.leaks import leaked, watched
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao, openbao  # noqa: F401 - a fixture
from tests.ssh.booted import BINARIES, Booted, Lab
from tests.ssh.sshd import generate
from tests.ssh.test_booted import add_user, host, server, unencrypted, unit_text, workspace  # noqa: F401 - fixtures

PASSWORD = 'it\'s a $(secret) %s \\ "tde" é'
PASSWD = PurePosixPath("/etc/passwd")
ASKED = "ALL=(ALL:ALL) ALL"


@pytest.fixture(scope="module")
def machine(laboratory: Lab) -> Booted:
    made = laboratory.boot("sudo")[0]
    add_user(made, "asked", sudoers=ASKED)
    made.root('printf "%s:%s\\n" asked "$1" | chpasswd', PASSWORD)
    return made


@pytest.fixture(autouse=True)
def untried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No password is known, and none was tried."""
    monkeypatch.delenv(sudo.ENVIRONMENT, raising=False)
    monkeypatch.setattr(openssh, "_PROOFS", {})
    connections.connections.cache_clear()  # they were made by what was configured then
    credentials.configure({sudo.SETTING: None}.get)
    yield
    credentials.configure({sudo.SETTING: None}.get)


def bound(machine: Booted, password: str, key: str | None = None) -> str:
    """The password, for this machine and its host key alone."""
    key = key or machine.root("cat /etc/ssh/ssh_host_ed25519_key.pub").strip()
    return json.dumps({f"{machine.address} {key}": password})


def failures(machine: Booted) -> int:
    """How often a password was refused, by the machine's own log."""
    return machine.root("journalctl --no-pager -o cat").count("authentication failure; logname=")


def test_everything_works_by_the_password(machine: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sudo.ENVIRONMENT, bound(machine, PASSWORD))
    target = host(machine, user="asked")
    assert target.run(["/usr/bin/id", "-un"], deadline=20) == "postgres\n"
    path = PurePosixPath("/tmp/asked/it's")
    target.write(path, b"tde-replication begins:\nx\0", mode=0o600)
    assert target.read(path) == b"tde-replication begins:\nx\0"
    data = PurePosixPath("/var/lib/postgresql/asked/data")
    target.run([f"{BINARIES}/initdb", "-D", str(data), "-U", "postgres", "--auth-local", "peer"], deadline=60)
    machine.root(scripts.UNIT, "make", "tde-asked", unit_text("asked", data))
    target.unit = "tde-asked"
    mark = target.start(PurePosixPath(BINARIES), data)
    assert until(lambda: answers(target, data), seconds=60)
    assert until(lambda: "database system is ready" in target.log_since(data, mark), seconds=60)
    target.stop(PurePosixPath(BINARIES), data, deadline=20)
    machine.root(scripts.UNIT, "remove", "tde-asked", "")
    assert PASSWORD not in machine.root("journalctl --no-pager -o cat")


def answers(target: SshHost, data: PurePosixPath) -> bool:
    try:
        with target.connect(data, "postgres") as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except Unavailable:
        return False


def test_it_is_not_needed_where_sudo_asks_for_none(machine: Booted) -> None:
    credentials.configure({sudo.SETTING: bound(machine, "never asked for")}.get)
    target = host(machine)
    assert target.run(["/usr/bin/id", "-un"], deadline=20) == "postgres\n"
    target.write(PurePosixPath("/tmp/not-asked"), b"x", mode=0o600)
    assert target.read(PurePosixPath("/tmp/not-asked")) == b"x"


def test_without_it_the_settings_that_it_can_come_from_are_named(machine: Booted) -> None:
    with pytest.raises(
        UserError, match=r"config set --secret tde-replication:sudoPassword .*, or TDE_REPLICATION_SUDO_PASSWORD"
    ):
        host(machine, user="asked").status(PASSWD)


def test_a_wrong_one_is_tried_once(machine: Booted) -> None:
    """Machines lock a login out after a few."""
    credentials.configure({sudo.SETTING: bound(machine, "wrong")}.get)
    before = failures(machine)
    for _ in range(3):
        with pytest.raises(UserError, match="rejects the password of asked") as caught:
            host(machine, user="asked").status(PASSWD)
        assert not isinstance(caught.value, Unavailable)
        assert "wrong" not in str(caught.value)
    assert failures(machine) == before + 1


def test_it_goes_to_a_machine_with_its_host_key_alone(
    machine: Booted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever known_hosts a stack file names: whoever proposes that may have put a key of their own into it."""
    generate(tmp_path / "mine")
    mine = " ".join((tmp_path / "mine.pub").read_text().split()[:2])
    monkeypatch.setenv(sudo.ENVIRONMENT, bound(machine, PASSWORD, mine))
    with pytest.raises(UserError, match=r"shows another host key|the host key of .* is not in known_hosts"):
        host(machine, user="asked").status(PASSWD)


def test_it_goes_to_no_other_machine(machine: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    key = machine.root("cat /etc/ssh/ssh_host_ed25519_key.pub").strip()
    monkeypatch.setenv(sudo.ENVIRONMENT, json.dumps({f"db1.example.net {key}": PASSWORD}))
    before = failures(machine)
    with pytest.raises(UserError, match="asks asked for a password"):
        host(machine, user="asked").status(PASSWD)
    assert failures(machine) == before


@pytest.mark.soak
def test_a_stack_from_nothing_and_back(
    machine: Booted,
    workspace: Workspace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def declared(port: int) -> dict[str, Any]:
        return server(machine, user="asked") | {"port": port}

    before = machine.found()
    workspace.write(unencrypted(db1=declared(5501), db2=declared(5502)))
    refused = workspace.up()
    assert refused.code != 0
    assert refused.text.count("asks asked for a password") >= 2, refused.text
    monkeypatch.setitem(workspace.environment, sudo.ENVIRONMENT, bound(machine, PASSWORD))
    with watched() as seen:
        shown = workspace.up_well().text
    workspace.unchanged()
    secret = {"password": PASSWORD}
    for text in (
        shown,
        workspace.state(),
        machine.root("journalctl --no-pager -o cat"),
        b"\n".join(seen.arguments).decode(),
    ):
        assert not leaked(secret, text)
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert machine.found() == before
