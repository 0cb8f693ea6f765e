"""What somebody edits about the machines of a running cluster: the way to one, what runs there, and where a standby is."""

import shutil
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest

from tde_replication.hosts.ssh import scripts
from tests.engine.change import edited
from tests.engine.workspace import Workspace
from tests.openbao import openbao  # noqa: F401 - a fixture
from tests.ssh.booted import USER, Booted, Lab
from tests.ssh.test_booted import ABOVE, add_user, answers, host, server, unencrypted, unit_text, workspace  # noqa: F401 - a fixture

PORT = 2222

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def machines(laboratory: Lab) -> list[Booted]:
    return laboratory.boot("one", "two")


def started(machine: Booted) -> str:
    """Since when its servers run."""
    return machine.root("systemctl show -p MainPID -p ActiveEnterTimestampMonotonic 'tde-*'")


def of_db1(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda cluster: cluster["servers"]["db1"]["host"].update(changes)


def test_settings_of_a_machine(  # noqa: PLR0915 - each goes on where the last one ended
    machines: list[Booted],
    workspace: Workspace,  # noqa: F811
) -> None:
    """Another way there is stored, and moves and restarts nothing; what the data could not be read with is refused."""
    one, two = machines
    before = [machine.found() for machine in machines]
    one.root("install -d -o postgres /srv/db1")
    primary = server(one) | {"dataDirectory": "/srv/db1/data"}
    workspace.write(unencrypted(db1=primary, db2=server(two)))
    workspace.up_well()
    running = [started(machine) for machine in machines]
    add_user(one, "ops", sudoers="ALL=(ALL) NOPASSWD: ALL")
    one.root(f"printf 'Port 22\\nPort {PORT}\\n' >/etc/ssh/sshd_config.d/tests.conf; systemctl restart ssh")
    keys = one.root("cat /etc/ssh/ssh_host_*_key.pub").splitlines()
    with (one.home / "known_hosts").open("a") as known:
        known.writelines(f"[{one.address}]:{PORT} {key}\n" for key in keys)
    shutil.copy(one.home / "id", one.home / "id-too")
    ways: list[dict[str, Any]] = [
        {"hostKeys": keys},
        {"user": "ops"},
        {"key": str(one.home / "id-too")},
        {"jump": f"{USER}@{two.address}"},
        {"port": PORT},
    ]
    for way in ways:
        workspace.write(edited(workspace.cluster, of_db1(**way)))
        plan = workspace.preview().plan
        assert plan, way
        assert set(plan.values()) == {"update"}, (way, plan)
        workspace.up_well()
        workspace.unchanged()
        assert [started(machine) for machine in machines] == running, way
    one.root(f"printf 'Port {PORT}\\n' >/etc/ssh/sshd_config.d/tests.conf; systemctl restart ssh")
    workspace.unchanged()
    declared = workspace.cluster
    refused: list[tuple[dict[str, Any], str]] = [
        (
            {"version": 17},
            "cluster.servers.db1.host.version: this is PostgreSQL 17, and the data in /srv/db1/data is of 18",
        ),
        ({"version": 17}, "cluster.servers.db2.host.version: this is PostgreSQL 18, and the primary's is 17"),
        ({"system": "redhat"}, f"cluster.servers.db1: there is no /usr/pgsql-18/bin/postgres on {one.address}: set"),
        (
            {"version": 19},
            f"cluster.servers.db1: there is no /usr/lib/postgresql/19/bin/postgres on {one.address}: set",
        ),
        ({"account": "nobody"}, "cluster.servers.db1.dataDirectory: nobody cannot look into /srv/db1/data ("),
        ({"unit": "postgresql@18-main"}, "postgresql@18-main runs a server that pg_createcluster made"),
    ]
    for changes, says in refused:
        workspace.write(edited(declared, of_db1(**changes)))
        done = workspace.preview()
        assert done.code, changes
        assert says in done.text, (changes, done.errors or done.text)
    workspace.write(edited(declared, lambda cluster: cluster["servers"]["db1"].update(server(two), port=5433)))
    assert "the primary's data is in /srv/db1/data of" in workspace.preview().text
    workspace.write(declared)
    workspace.unchanged()
    assert [started(machine) for machine in machines] == running
    # Another unit does not take over what runs by this one.
    orders = unit_text("orders", PurePosixPath("/srv/db1/data")).replace(" -k /tmp", "")
    one.root(scripts.UNIT, "make", "orders", orders)
    workspace.write(edited(declared, of_db1(unit="orders")))
    refusal = workspace.up()
    assert "the unit orders does not run the server on /srv/db1/data, which is left running" in refusal.text
    assert [started(machine) for machine in machines] == running, refusal.text
    one.root(scripts.UNIT, "remove", "orders", "")
    workspace.write(declared)
    workspace.up_well()
    workspace.unchanged()
    assert [started(machine) for machine in machines] == running
    # A standby moves: to the primary's machine, where it is the second.
    moved = server(one, user="ops", port=PORT) | {"port": 5433}
    workspace.write(edited(declared, lambda cluster: cluster["servers"].update(db2=moved)))
    preview = workspace.preview()
    plan = preview.plan
    assert plan["DataDirectory db2"] == "replace"
    assert f"; on {two.address}, the unit tde-staging-db2 and the directory above the data stay" in preview.text
    assert not [name for name in plan if "db1" in name and plan[name] != "update"], plan
    workspace.up_well()
    workspace.unchanged()
    assert answers(host(one, user="ops", port=PORT), ABOVE / "tde-staging-db2/data")
    left = two.root("ls -A /var/lib/postgresql/18/tde-staging-db2; pgrep -a postgres; true")
    assert left == ""
    two.root(scripts.UNIT, "remove", "tde-staging-db2", "")
    two.root("rmdir -p /var/lib/postgresql/18/tde-staging-db2 2>/dev/null; true")
    assert two.found() == before[1]
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    one.root("printf 'Port 22\\n' >/etc/ssh/sshd_config.d/tests.conf; systemctl restart ssh; rmdir /srv/db1")
    assert [machine.found() for machine in machines] == before
