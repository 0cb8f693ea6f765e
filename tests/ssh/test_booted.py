"""Servers on machines booted by systemd, by ssh and sudo: what a login may be like, and whole stacks by the real engine."""

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts.ssh import scripts
from tde_replication.hosts.ssh.machine import SshHost
from tde_replication.waiting import until
from tests.engine.certificates import Authority
from tests.engine.workspace import ROOT, Workspace
from tests.openbao import OpenBao, openbao  # noqa: F401 - a fixture
from tests.ssh.booted import BINARIES, USER, Booted, Lab

PASSWD = PurePosixPath("/etc/passwd")
ABOVE = PurePosixPath("/var/lib/postgresql/18")


@pytest.fixture(scope="module")
def machines(laboratory: Lab) -> list[Booted]:
    return laboratory.boot("db1", "db2")


@pytest.fixture
def machine(machines: list[Booted]) -> Booted:
    return machines[0]


def host(machine: Booted, **more: Any) -> SshHost:
    return SshHost(machine.login(**more).address(unit="none"))


def add_user(machine: Booted, name: str, *, shell: str = "/bin/bash", sudoers: str = "") -> None:
    machine.root(
        'useradd --create-home --shell "$2" "$1"; cp -r "/home/$3/.ssh" "/home/$1/"; chown -R "$1": "/home/$1"; '
        '[ -z "$4" ] || echo "$1 $4" >"/etc/sudoers.d/$1"',
        *(name, shell, USER, sudoers),
    )


SHELLS = {
    "fish": ("/usr/bin/fish", ".config/fish/config.fish", "echo welcome to fish; echo trouble >&2"),
    "tcsh": ("/usr/bin/tcsh", ".tcshrc", 'echo "welcome to csh"'),
    "bash": ("/bin/bash", ".bashrc", "echo welcome; echo trouble >&2; export LC_ALL=de_DE.UTF-8 LANGUAGE=de PGHOST=x"),
    "dash": ("/bin/dash", ".profile", "echo welcome"),
}


@pytest.mark.parametrize("name", SHELLS)
def test_any_login_shell_will_do(machine: Booted, name: str) -> None:
    shell, file, content = SHELLS[name]
    user = f"u{name}"
    add_user(machine, user, shell=shell, sudoers="ALL=(postgres) NOPASSWD: ALL")
    machine.root(
        'mkdir -p "$(dirname "$1")"; echo "$2" >"$1"; chmod -R a+rX "$(dirname "$1")"', f"/home/{user}/{file}", content
    )
    target = host(machine, user=user)
    assert target.run(["/bin/echo", "it's $HOME", "a\nb"], deadline=20) == "it's $HOME a\nb\n"
    assert target.run(["/usr/bin/id", "-un"], deadline=20) == "postgres\n"
    assert "PGHOST" not in target.run(["/usr/bin/env"], deadline=20)
    path = PurePosixPath(f"/tmp/{user}/it's")
    target.write(path, b"x\0\n", mode=0o600)
    assert target.read(path) == b"x\0\n"
    with pytest.raises(CommandFailed) as caught:
        target.run(["/bin/ls", "/no/such"], deadline=20)
    assert caught.value.output.removeprefix("/bin/") == "ls: cannot access '/no/such': No such file or directory\n"


@pytest.mark.parametrize(
    ("sudoers", "sentence"),
    [
        ("", "sudo on .* asks limited for a password: allow `limited ALL=.postgres. NOPASSWD: ALL`"),
        ("ALL=(postgres) ALL", "asks limited for a password"),
        ("ALL=(root) NOPASSWD: /usr/bin/systemctl", "asks limited|does not let limited become postgres"),
    ],
    ids=["none", "with a password", "others"],
)
def test_wrong_sudo_rights_are_told(machine: Booted, sudoers: str, sentence: str) -> None:
    add_user(machine, "limited", sudoers=sudoers)
    try:
        with pytest.raises(UserError, match=sentence) as caught:
            host(machine, user="limited").status(PASSWD)
        assert not isinstance(caught.value, Unavailable)
    finally:
        machine.root("userdel -r limited 2>/dev/null; rm -f /etc/sudoers.d/limited")


def test_systemd_needs_a_right_of_its_own(machine: Booted) -> None:
    add_user(machine, "half", sudoers="ALL=(postgres) NOPASSWD: ALL")
    target = host(machine, user="half")
    assert target.status(PASSWD)
    with pytest.raises(UserError, match=r"allow `half ALL=.root. NOPASSWD: ALL`"):
        target.start(PurePosixPath(BINARIES), ABOVE)


def test_the_account_itself_may_log_in(machine: Booted) -> None:
    machine.root('cp -r "/home/$1/.ssh" /var/lib/postgresql/; chown -R postgres: /var/lib/postgresql/.ssh', USER)
    assert host(machine, user="postgres").run(["/usr/bin/id", "-un"], deadline=20) == "postgres\n"


def test_root_needs_no_sudo(machine: Booted) -> None:
    machine.root('cp -r "/home/$1/.ssh" /root/; chown -R root: /root/.ssh; mv /usr/bin/sudo /usr/bin/sudo.away', USER)
    try:
        assert host(machine, user="root").run(["/usr/bin/id", "-un"], deadline=20) == "postgres\n"
        with pytest.raises(UserError, match=r"there is no sudo on .*, and deploy is not postgres"):
            host(machine).status(PASSWD)
    finally:
        machine.root("mv /usr/bin/sudo.away /usr/bin/sudo")


def test_a_full_disk(machine: Booted) -> None:
    machine.root("mkdir -p /small; mount -t tmpfs -o size=64k,mode=777 tmpfs /small")
    target = host(machine)
    target.write(PurePosixPath("/small/f"), b"small", mode=0o600)
    with pytest.raises(UserError, match="No space left on device"):
        target.write(PurePosixPath("/small/f"), b"x" * 1_000_000, mode=0o600)
    assert target.listing(PurePosixPath("/small")) == ["f"]
    assert target.read(PurePosixPath("/small/f")) == b"small"


def test_a_directory_that_the_account_cannot_write_to(machine: Booted) -> None:
    machine.root("mkdir -p /srv/roots")
    status, output = machine.container.exec_run(
        ["/bin/sh", "-c", scripts.DIRECTORY, "sh", "make", "postgres", "/srv/roots", "no"]
    )
    assert status == 1
    assert b"postgres cannot write to /srv/roots: give it that directory" in output


@pytest.mark.parametrize("gone", [(), ("perl",), ("perl", "python3")], ids=["perl", "python", "none"])
def test_the_bridge_takes_what_there_is(machine: Booted, gone: tuple[str, ...]) -> None:
    data = PurePosixPath("/var/lib/postgresql/bridge/data")
    target = host(machine)
    if not target.listing(data):
        target.run([f"{BINARIES}/initdb", "-D", str(data), "-U", "postgres", "--auth-local", "peer"], deadline=60)
        machine.root(scripts.UNIT, "make", "tde-bridge", unit_text("bridge", data))
    target.unit = "tde-bridge"
    if not target.postmaster(data):
        target.start(PurePosixPath(BINARIES), data)
    for name in gone:
        machine.root('mv "/usr/bin/$1" "/usr/bin/$1.away"', name)
    try:
        if "python3" in gone:
            assert until(lambda: target.postmaster(data) is not None, seconds=60)
            with pytest.raises(Unavailable, match="none of perl, python3 and socat is installed there"):
                target.connect(data, "postgres")
        else:
            assert until(lambda: answers(target, data), seconds=60)
    finally:
        for name in gone:
            machine.root('mv "/usr/bin/$1.away" "/usr/bin/$1"', name)
    if "python3" in gone:
        target.stop(PurePosixPath(BINARIES), data, deadline=20)
        machine.root(scripts.UNIT, "remove", "tde-bridge", "")


def unit_text(name: str, data: PurePosixPath) -> str:
    values = {"stack": "tests", "account": "postgres", "unit": f"tde-{name}", "binaries": BINARIES}
    # For servers that nobody gave another socket directory.
    return scripts.UNIT_TEXT.format(name=name, data=f"{data} -k /tmp", **values).replace(
        f"{data} -k /tmp/PG", f"{data}/PG"
    )


def answers(target: SshHost, data: PurePosixPath) -> bool:
    try:
        with target.connect(data, "postgres") as connection:
            return connection.execute("SELECT repeat('x', 100000) = %s", ["x" * 100_000]).fetchone() == (True,)
    except Unavailable:
        return False


# Whole stacks


@pytest.fixture
def workspace(openbao: OpenBao) -> Iterator[Workspace]:  # noqa: F811
    if not shutil.which("pulumi") or not (ROOT / ".venv").exists():
        pytest.skip("STACKS OVER SSH DID NOT RUN: no pulumi on PATH; `make test` brings one")
    made = Workspace(Path(tempfile.mkdtemp(prefix="tde-")), "staging", openbao.environment)
    made.init()
    yield made
    made.close()


def server(machine: Booted, **more: Any) -> dict[str, Any]:
    known = {"key": str(machine.home / "id"), "knownHosts": str(machine.home / "known_hosts")}
    return {"host": {"ssh": machine.address, "user": USER, "packages": "none", **known, **more}}


def unencrypted(**servers: dict[str, Any]) -> dict[str, Any]:
    """A cluster of db1 (the primary) and other servers."""
    return {"encryption": "off", "disposable": True, "primary": "db1", "servers": servers}


def test_from_nothing_to_streaming_and_back(machines: list[Booted], workspace: Workspace) -> None:
    before = [machine.found() for machine in machines]
    one, two = machines
    cluster = unencrypted(db1=server(one), db2=server(two)) | {"encryption": "if-available"}
    workspace.write(cluster)
    first = workspace.preview()
    assert first.code == 0, first.errors or first.text
    assert [machine.found() for machine in machines] == before  # a preview does nothing
    workspace.up_well()
    workspace.unchanged()
    data = [ABOVE / "tde-staging-db1/data", ABOVE / "tde-staging-db2/data"]
    with host(one).connect(data[0], "postgres") as primary:
        query = "SELECT slot_name, client_addr, state FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid"
        assert [(*row[:1], str(row[1]), *row[2:]) for row in primary.execute(query)] == [
            ("tde_db2", two.address, "streaming")
        ]
        assert primary.execute("SHOW data_checksums").fetchone() == ("on",)
    # Another way to the same machine moves nothing.
    shutil.copy(one.home / "known_hosts", one.home / "known_too")
    known = str(one.home / "known_too")
    workspace.write({**cluster, "servers": {"db1": server(one), "db2": server(two, knownHosts=known)}})
    plan = workspace.preview().plan
    assert plan
    assert set(plan.values()) == {"update"}
    workspace.up_well()
    workspace.unchanged()
    # Both come back by themselves.
    two.reboot()
    one.reboot(orderly=False)
    assert until(lambda: answers(host(one), data[0]) and answers(host(two), data[1]), seconds=30)
    assert until(lambda: workspace.preview("--expect-no-changes").code == 0, seconds=60)
    # Stopped by hand: seen, and started.
    one.root("systemctl stop tde-staging-db1")
    assert workspace.preview().plan == {"Server db1": "update", "ReplicationCheck db2": "update"}
    workspace.up_well()
    workspace.unchanged()
    secrets_of(workspace, one)
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert [machine.found() for machine in machines] == before


def test_a_disk_that_is_full_in_a_clone(machines: list[Booted], workspace: Workspace) -> None:
    """What was full is said, nothing half-cloned is taken for whole, and once there is room a plain `up` finishes."""
    one, two = machines
    two.root("mkdir /small; mount -t tmpfs -o size=30m,mode=700 tmpfs /small; chown postgres: /small")
    room = PurePosixPath("/small")
    standby = server(two) | {"dataDirectory": str(room / "data")}
    workspace.write(unencrypted(db1=server(one), db2=standby))
    for _ in range(2):  # the second is no other
        failed = workspace.up()
        assert failed.code != 0
        [error] = [line for line in failed.errors if "base backup" in line]
        assert "No space left on device" in error
        assert "/small/" in error
        assert "Nothing of it is left; `up` tries again" in error
        assert [name for name in host(two).listing(room) if "data" in name] == []
    primary = host(one)
    data = ABOVE / "tde-staging-db1/data"
    with primary.connect(data, "postgres") as connection:
        slots = connection.execute("SELECT slot_name, active FROM pg_replication_slots").fetchall()
    assert slots in ([], [("tde_db2", False)])
    two.root("mount -o remount,size=500m /small")
    workspace.up_well()
    workspace.unchanged()
    with primary.connect(data, "postgres") as connection:
        slots = connection.execute("SELECT slot_name, active FROM pg_replication_slots").fetchall()
    assert slots == [("tde_db2", True)]
    assert answers(host(two), room / "data")
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert two.root("ls -A /small; umount /small; rmdir /small") == ""


@pytest.mark.soak
def test_a_standby_that_cannot_be_reached_at_destroy(
    laboratory: Lab, machines: list[Booted], workspace: Workspace
) -> None:
    """Without the word, destroy stops and says why; with it, each thing that stays is named, and the primary keeps nothing."""
    one, two = machines
    before = one.found()
    workspace.write(unencrypted(db1=server(one), db2=server(two)))
    workspace.up_well()
    with laboratory.unplugged(two):
        stopped = workspace.destroy()
        assert stopped.code != 0
        assert f"was not removed: {two.address} cannot be reached" in stopped.text
        assert "TDE_REPLICATION_LEAVE_UNREACHABLE=true pulumi destroy" in stopped.text
        workspace.environment["TDE_REPLICATION_LEAVE_UNREACHABLE"] = "true"
        left = workspace.destroy("--continue-on-error")
        told = set(re.findall(r"left behind: (\w+) (.+) \(.*cannot be reached", left.text))
        kinds = Counter(kind for kind, _ in told)
        assert kinds == {"Server": 1, "DataDirectory": 1, "CleanupRecord": 1, "HostFile": 3}
        assert one.found() == before
        # What pulumi-command is to run there, it cannot leave: docs/teardown.md.
        assert left.code != 0
        assert any(two.address in line and "dial tcp" in line for line in left.errors), left.errors
        assert kept(workspace) == {"db2-directory", "db2-unit"}
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert "tde-staging-db2" not in two.root("ls /etc/systemd/system; pgrep -a postgres; true")
    assert two.root("ls /var/lib/postgresql/18/tde-staging-db2/data/PG_VERSION")
    two.root("rm -r /var/lib/postgresql/18")


def kept(workspace: Workspace) -> set[str]:
    """Which of pulumi-command's resources are in the state."""
    resources = json.loads(workspace.run("stack", "export").text)["deployment"]["resources"]
    return {one["urn"].rpartition("::")[2] for one in resources if one["type"].startswith("command:")}


def secrets_of(workspace: Workspace, machine: Booted) -> None:
    """Keys and tokens are in no state, and in no log of the machine's."""
    key = (machine.home / "id").read_text().splitlines()[1]
    state = workspace.state()
    assert "tde-staging-db1" in state
    assert key not in state
    token = machine.root("cat /var/lib/postgresql/18/tde-staging-db1/staging.vault-token")
    assert len(token) > 10
    assert token not in state
    journal = machine.root("journalctl --no-pager -o cat")
    assert "read -r line" in journal  # sudo logs what it runs
    assert token not in journal


def test_a_primary_that_is_there_is_adopted_and_left(machines: list[Booted], workspace: Workspace) -> None:
    one, two = machines
    data = PurePosixPath("/srv/orders/data")
    one.root("install -d -o postgres /srv/orders")
    target = host(one)
    target.run([f"{BINARIES}/initdb", "-D", str(data), "-U", "postgres", "--auth-local", "peer"], deadline=60)
    settings = b"listen_addresses = '*'\nport = 5555\nunix_socket_directories = '/tmp'\nwork_mem = '7MB'\n"
    target.write(data / "conf", settings, mode=0o600)
    target.run(["/bin/sh", "-c", 'cat "$1/conf" >>"$1/postgresql.conf"', "sh", str(data)], deadline=10)
    one.root(scripts.UNIT, "make", "orders", unit_text("orders", data).replace("RuntimeDirectory=tde-orders", ""))
    target.unit = "orders"
    target.start(PurePosixPath(BINARIES), data)
    assert until(lambda: answers(target, data), seconds=60)
    running = target.postmaster(data)
    primary = server(one, unit="orders") | {
        "adopt": True,
        "restart": "refused",
        "port": 5555,
        "dataDirectory": str(data),
    }
    workspace.write(unencrypted(db1=primary, db2=server(two)))
    workspace.up_well()
    workspace.unchanged()
    assert answers(host(two), ABOVE / "tde-staging-db2/data")
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert target.postmaster(data) == running  # the same process
    with target.connect(data, "postgres") as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
    target.stop(PurePosixPath(BINARIES), data, deadline=20)
    one.root(scripts.UNIT, "remove", "orders", "")


@pytest.mark.soak
def test_debians_own_primary_is_restarted_where_that_is_allowed(machines: list[Booted], workspace: Workspace) -> None:
    """By its own unit, and once; previewed as such, before the first `up` too."""
    one, two = machines
    one.root("pg_createcluster 17 main -- --data-checksums; pg_conftool 17 main set listen_addresses '*'")
    one.root("systemctl start postgresql@17-main")
    before = state_of_debians(one)
    primary = server(one, version=17) | {
        "adopt": True,
        "port": 5432,
        "dataDirectory": "/var/lib/postgresql/17/main",
        "settings": {"max_connections": 130, "work_mem": "7MB"},
    }
    standby = server(two, version=17)
    told = "server db1 will be restarted: max_connections can only change at start"
    workspace.write(unencrypted(db1=primary, db2=standby))
    refused = workspace.up()
    assert refused.code != 0
    assert "server db1 must be restarted for max_connections, and the stack says restart: refused" in refused.text
    assert state_of_debians(one) == before
    primary |= {"restart": "allowed"}
    workspace.write(unencrypted(db1=primary, db2=standby))
    started = unit_of_debians(one)
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert told in preview.text
    assert unit_of_debians(one) == started
    workspace.up_well()
    workspace.unchanged()
    restarted = unit_of_debians(one)
    assert restarted != started
    assert "ActiveState=active" in restarted
    query = (
        "SELECT current_setting('max_connections'), current_setting('work_mem'), slot_name FROM pg_replication_slots"
    )
    assert one.root('runuser -u postgres -- psql -XAtc "$1"', query) == "130|7MB|tde_db2\n"
    assert two.root("pgrep -c walreceiver || pgrep -fc 'walreceiver streaming'").strip() != "0"
    # A later one is previewed too; what is only reloaded restarts nothing.
    settings = {"max_connections": 140, "work_mem": "8MB"}
    workspace.write(unencrypted(db1=primary | {"settings": settings | {"max_connections": 130}}, db2=standby))
    assert "will be restarted" not in workspace.preview().text
    workspace.up_well()
    assert unit_of_debians(one) == restarted
    workspace.write(unencrypted(db1=primary | {"settings": settings}, db2=standby))
    assert told in workspace.preview().text
    workspace.up_well()
    workspace.unchanged()
    assert unit_of_debians(one) != restarted
    running = unit_of_debians(one)
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert unit_of_debians(one) == running  # left running; what waits for a restart is as it was found
    one.root("systemctl restart postgresql@17-main")
    assert until(lambda: "7MB" not in one.root('runuser -u postgres -- psql -XAtc "SHOW work_mem"'), seconds=10)
    assert without_process(state_of_debians(one)) == without_process(before)
    one.root("pg_dropcluster --stop 17 main")


def unit_of_debians(machine: Booted) -> str:
    """Its main process, since when, and whether systemd has it as running."""
    return machine.root("systemctl show -p MainPID -p ActiveState -p ActiveEnterTimestampMonotonic postgresql@17-main")


def without_process(state: str) -> list[str]:
    """Of `state_of_debians`, but the process and what depends on when it was started."""
    return [line for line in state.splitlines() if not re.fullmatch(r"\d+|postmaster\.\w+", line)]


def test_debians_own_primary_is_adopted_over_tls(machines: list[Booted], workspace: Workspace) -> None:
    """As pg_createcluster makes it: configuration in /etc, run by postgresql@17-main."""
    one, two = machines
    one.root("pg_createcluster 17 main -- --data-checksums")
    authority, stranger = Authority(workspace.directory, "ca"), Authority(workspace.directory, "stranger")
    certificate, key = authority.certificate(one.address)
    install(one, "/etc/postgresql/17/main/server.pem", certificate, mode="644")
    install(one, "/etc/postgresql/17/main/server.key", key, mode="600")
    install(two, "/etc/ssl/ca.pem", stranger.file, mode="644")
    for parameter, value in (
        ("listen_addresses", "*"),
        ("ssl", "on"),
        ("ssl_cert_file", "/etc/postgresql/17/main/server.pem"),
        ("ssl_key_file", "/etc/postgresql/17/main/server.key"),
        ("max_connections", "130"),
    ):
        one.root('pg_conftool 17 main set "$1" "$2"', parameter, value)
    one.root("systemctl start postgresql@17-main")
    before = state_of_debians(one)
    primary = server(one, version=17) | {
        "adopt": True,
        "restart": "refused",
        "port": 5432,
        "dataDirectory": "/var/lib/postgresql/17/main",
    }
    replication = {"tls": "verify-full", "rootCertificate": "/etc/ssl/ca.pem"}
    workspace.write({**unencrypted(db1=primary, db2=server(two, version=17)), "replication": replication})
    refused = workspace.up()
    assert refused.code != 0
    assert any("certificate verify failed. Nothing of it is left" in line for line in refused.errors), refused.errors
    install(two, "/etc/ssl/ca.pem", authority.file, mode="644")
    workspace.up_well()
    workspace.unchanged()
    query = "SELECT slot_name, ssl FROM pg_stat_ssl JOIN pg_replication_slots ON pid = active_pid"
    assert one.root('runuser -u postgres -- psql -XAtc "$1"', query) == "tde_db2|t\n"
    standby = host(two)
    data = PurePosixPath("/var/lib/postgresql/17/tde-staging-db2/data")
    with standby.connect(data, "postgres") as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    assert b"hostssl replication     replicator" in (standby.read(data / "pg_hba.conf") or b"")
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert state_of_debians(one) == before
    assert two.root("ls /var/lib/postgresql") == ""
    one.root("pg_dropcluster --stop 17 main")


def install(machine: Booted, path: str, file: Path, *, mode: str) -> None:
    """A file of the account postgres."""
    machine.root('printf %s "$2" >"$1"; chown postgres: "$1"; chmod "$3" "$1"', path, file.read_text(), mode)


def state_of_debians(machine: Booted) -> str:
    """Everything that an adopted server must keep: its process, files, roles, slots, and settings in force."""
    queries = (
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'",
        "SELECT rolname, rolpassword FROM pg_authid ORDER BY 1",
        "SELECT slot_name FROM pg_replication_slots",
        "SELECT name, setting FROM pg_settings WHERE source <> 'session' ORDER BY 1",
    )
    files = machine.root("cat /etc/postgresql/17/main/*.conf; ls /var/lib/postgresql/17 /var/lib/postgresql/17/main")
    return files + machine.root('for q; do runuser -u postgres -- psql -XAtc "$q"; done', *queries)
