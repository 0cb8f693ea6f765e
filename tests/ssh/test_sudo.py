"""A sudo that asks for the login's password, on a machine booted by systemd."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from components.errors import Problem, Unavailable
from components.hosts import openssh, ssh_scripts, sudo
from components.hosts.ssh import SshHost
from components.waiting import until
from tests.engine.leaks import leaked, watched
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao, openbao  # noqa: F401 - a fixture
from tests.ssh.booted import BINARIES, Booted, Lab
from tests.ssh.test_booted import add_user, host, server, unit_text, workspace  # noqa: F401 - fixtures

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
    sudo.configure(None)
    yield
    sudo.configure(None)


def failures(machine: Booted) -> int:
    """How often a password was refused, by the machine's own log."""
    return machine.root("journalctl --no-pager -o cat").count("authentication failure; logname=")


def test_everything_works_by_the_password(machine: Booted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sudo.ENVIRONMENT, PASSWORD)
    target = host(machine, user="asked")
    assert target.run(["/usr/bin/id", "-un"], deadline=20) == "postgres\n"
    path = PurePosixPath("/tmp/asked/it's")
    target.write(path, b"tde-replication begins:\nx\0", mode=0o600)
    assert target.read(path) == b"tde-replication begins:\nx\0"
    data = PurePosixPath("/var/lib/postgresql/asked/data")
    target.run([f"{BINARIES}/initdb", "-D", str(data), "-U", "postgres", "--auth-local", "peer"], deadline=60)
    machine.root(ssh_scripts.UNIT, "make", "tde-asked", unit_text("asked", data))
    target.unit = "tde-asked"
    mark = target.launch(PurePosixPath(BINARIES), data)
    assert until(lambda: answers(target, data), seconds=60)
    assert until(lambda: "database system is ready" in target.log_since(data, mark), seconds=60)
    target.halt(PurePosixPath(BINARIES), data, deadline=20)
    machine.root(ssh_scripts.UNIT, "remove", "tde-asked", "")
    assert PASSWORD not in machine.root("journalctl --no-pager -o cat")


def answers(target: SshHost, data: PurePosixPath) -> bool:
    try:
        with target.connect(data, "postgres") as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except Unavailable:
        return False


def test_it_is_not_needed_where_sudo_asks_for_none(machine: Booted) -> None:
    sudo.configure("never asked for")
    target = host(machine)
    assert target.run(["/usr/bin/id", "-un"], deadline=20) == "postgres\n"
    target.write(PurePosixPath("/tmp/not-asked"), b"x", mode=0o600)
    assert target.read(PurePosixPath("/tmp/not-asked")) == b"x"


def test_without_it_the_settings_that_it_can_come_from_are_named(machine: Booted) -> None:
    with pytest.raises(
        Problem, match=r"config set --secret tde-replication:sudoPassword`, or TDE_REPLICATION_SUDO_PASSWORD"
    ):
        host(machine, user="asked").status(PASSWD)


def test_a_wrong_one_is_tried_once(machine: Booted) -> None:
    """Machines lock a login out after a few."""
    sudo.configure("wrong")
    before = failures(machine)
    for _ in range(3):
        with pytest.raises(Problem, match="does not take the password of asked") as caught:
            host(machine, user="asked").status(PASSWD)
        assert not isinstance(caught.value, Unavailable)
        assert "wrong" not in str(caught.value)
    assert failures(machine) == before + 1


def test_one_that_cannot_be_typed(machine: Booted) -> None:
    sudo.configure("two\nlines")
    with pytest.raises(Problem, match="cannot hold a line break"):
        host(machine, user="asked").status(PASSWD)


@pytest.mark.soak
def test_a_stack_from_nothing_and_back(
    machine: Booted,
    workspace: Workspace,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def declared(name: str, **more: Any) -> dict[str, Any]:
        made = server(machine, name, **more)
        return {**made, "host": {**made["host"], "user": "asked"}}

    before = machine.found()
    workspace.write(
        {
            "encryption": "off",
            "disposable": True,
            "primary": declared("db1") | {"port": 5501},
            "standbys": [declared("db2") | {"port": 5502}],
        }
    )
    refused = workspace.up()
    assert refused.code != 0
    assert refused.text.count("asks asked for more than it can give here") >= 2, refused.text
    monkeypatch.setitem(workspace.environment, sudo.ENVIRONMENT, PASSWORD)
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
