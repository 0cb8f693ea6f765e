"""A program that makes the machines of its cluster: `examples/own_machines`, whose machines are booted here."""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tde_replication.placeholders import DOMAIN
from tests.engine.workspace import ROOT, Workspace
from tests.openbao import OpenBao, openbao  # noqa: F401 - a fixture
from tests.ssh.booted import USER, Booted, Lab

EXAMPLE = ROOT / "examples" / "own_machines"
COMMAND = """\
#!{python}
# As a cloud does: `make NAME` starts the next machine of the pool, and says its address long before that takes a login.
import fcntl
import json
import sys

import docker

lock = open(__file__)  # held as long as it is open
fcntl.flock(lock, fcntl.LOCK_EX)
keys = {keys}
pool = [docker.from_env().containers.get(name) for name in keys]


def address(machine):
    machine.reload()
    [network] = machine.attrs["NetworkSettings"]["Networks"].values()
    return network["IPAddress"]


if sys.argv[1] == "make":
    new = next(machine for machine in pool if machine.status == "exited")
    new.start()
    print(json.dumps({{"address": address(new), "host_keys": keys[new.name]}}))
else:
    next(machine for machine in pool if address(machine) == sys.argv[3]).stop(timeout=0)
"""
FOREIGN = "/var/lib/postgresql/18/tde-trial-orders-db2/data"


@pytest.fixture
def pool(laboratory: Lab) -> Iterator[list[Booted]]:
    """Machines that are off. The first two have something of somebody else's where a standby's data would be."""
    known = laboratory.home / "known_hosts"
    before = known.read_text() if known.exists() else ""
    made = laboratory.boot("own1", "own2", "own3")
    known.write_text(before)  # the program gives their keys, and other machines will have their addresses
    for machine in made[:2]:
        machine.root('install -d -o postgres "$1"; touch "$1/theirs"', FOREIGN)
    for machine in made:
        machine.container.stop(timeout=0)
    yield made
    for machine in made:
        laboratory.machines.remove(machine)
        machine.container.remove(force=True, v=True)


@pytest.fixture
def workspace(openbao: OpenBao, pool: list[Booted]) -> Iterator[Workspace]:  # noqa: F811
    if not shutil.which("pulumi") or not (ROOT / ".venv").exists():
        pytest.skip("THE PROGRAM WITH MACHINES OF ITS OWN DID NOT RUN: no pulumi on PATH; `make test` brings one")
    made = Workspace(Path(tempfile.mkdtemp(prefix="tde-")), "trial", openbao.environment)
    for name in ("__main__.py", "Pulumi.yaml"):
        (made.directory / name).unlink()
    shutil.copytree(EXAMPLE, made.directory, dirs_exist_ok=True)
    made.environment["PYTHONPATH"] = str(ROOT / "components")
    command = made.directory / "machine"
    keys = {machine.container.name: machine.host_keys for machine in pool}
    command.write_text(COMMAND.format(python=sys.executable, keys=keys))
    command.chmod(0o755)
    made.init()
    settings = {"command": command, "user": USER, "key": pool[0].home / "id", "packages": "none", "unencrypted": "true"}
    for key, value in settings.items():
        assert made.run("config", "set", key, str(value)).code == 0
    yield made
    made.close()


def running(pool: list[Booted]) -> list[Booted]:
    """With the addresses that they have now."""
    for machine in pool:
        machine.container.reload()
        [network] = machine.container.attrs["NetworkSettings"]["Networks"].values()
        machine.address = network["IPAddress"]
    return [machine for machine in pool if machine.container.status == "running"]


def test_from_no_machine_to_streaming_and_back(pool: list[Booted], workspace: Workspace) -> None:
    first = workspace.preview()
    assert first.code == 0, first.errors or first.text
    assert running(pool) == []
    assert first.plan["Machine db1"] == first.plan["Machine orders-db1"] == first.plan["Server orders-db2"] == "create"
    assert f"HbaRule orders-replicator from db2.{DOMAIN}" in first.plan
    [unasked] = re.findall(r"`up` then checks everything before it touches anything\. Not checked: (.*)", first.text)
    assert sorted(unasked.split(", ")) == ["all on db1", "all on db2"]
    assert DOMAIN not in "".join(re.findall(r"^ +\w+ *: .*", first.text, re.MULTILINE))

    # Whatever a machine has against it is told once it has booted, before anything else is made.
    refused = workspace.up()
    assert refused.code != 0
    assert 'EncryptedReplication "orders" has 1 mistake; nothing was touched:' in refused.text, refused.text
    assert (
        f"cluster.servers.db2.dataDirectory: {FOREIGN} is not empty and was not made by this stack" in refused.text
    ), refused.text
    assert "Traceback" not in refused.text
    machines = running(pool)
    assert len(machines) == 2
    assert [machine.found() for machine in machines] == ["tde-trial-orders-db2\n"] * 2
    for machine in machines:
        machine.root('rm -r "$1"', str(PurePosixPath(FOREIGN).parent))

    workspace.up_well()
    assert "1 primary, 1 standby, streaming" in workspace.output("summary")
    assert json.loads(workspace.output("primary"))["host"] in {machine.address for machine in machines}
    workspace.unchanged()
    assert workspace.run("refresh", "--preview-only", "--expect-no-changes").code == 0

    # The primary's data would stay behind: told before its machine is replaced.
    urn = "urn:pulumi:trial::own-machines::pulumi-python:dynamic/own:Machine::"
    refused = workspace.preview("--replace", f"{urn}db1")
    assert refused.code != 0
    assert "the address of the primary's machine is not known yet, and if that is replaced, the data" in refused.text

    # Another machine for the standby: the former one outlives what lies on it.
    [former] = [machine for machine in machines if "tde-trial-orders-db2" in machine.found()]
    preview = workspace.preview("--replace", f"{urn}db2")
    assert preview.code == 0, preview.errors or preview.text
    assert preview.plan["DataDirectory orders-db2"] == "replace"
    assert "Server orders-db1" not in preview.plan
    done = workspace.up("--replace", f"{urn}db2")
    assert done.code == 0, done.errors or done.text
    [standby] = [machine for machine in running(pool) if machine not in machines]
    assert former not in running(pool)
    assert "tde-trial-orders-db2" in standby.found()
    workspace.unchanged()

    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert running(pool) == []
