"""Packages that are brought to a machine as files, because no repository can be reached from it."""

import subprocess
from pathlib import Path

import pytest

from tests.engine.workspace import Workspace
from tests.openbao import openbao  # noqa: F401 - a fixture
from tests.ssh.booted import USER, Booted, Lab
from tests.ssh.test_booted import server, unencrypted, workspace  # noqa: F401 - a fixture

PLACE = f"/home/{USER}/.cache/tde-replication/tde-staging-db1"
FACTS = (
    "Package: tde-test\nVersion: {}\nArchitecture: all\nMaintainer: tests <tests@example.net>\nDescription: nothing\n"
)


@pytest.fixture(scope="module")
def machine(laboratory: Lab) -> Booted:
    return laboratory.boot("packages")[0]


def package(directory: Path, version: str) -> None:
    """A package of no files, as the only one in `directory`."""
    for old in directory.glob("*"):
        old.unlink()
    tree = directory.with_name(f"tree-{version}")
    (tree / "DEBIAN").mkdir(parents=True, mode=0o755)
    (tree / "DEBIAN" / "control").write_text(FACTS.format(version))
    target = directory / f"tde-test_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, target], check=True, capture_output=True)


def installed(machine: Booted) -> str:
    return machine.root("dpkg-query --show --showformat '${Version}' tde-test 2>/dev/null; true")


@pytest.mark.soak
def test_they_are_copied_installed_and_followed(
    machine: Booted,
    workspace: Workspace,  # noqa: F811
    tmp_path: Path,
) -> None:
    directory = tmp_path / "some packages"
    directory.mkdir()
    package(directory, "1")
    before = machine.found()
    workspace.write(unencrypted(db1=server(machine, packages=str(directory))))
    assert workspace.preview().code == 0
    assert installed(machine) == ""  # a preview does nothing
    workspace.up_well()
    assert installed(machine) == "1"
    workspace.unchanged()
    package(directory, "2")
    shown = workspace.preview().text
    assert "./tde-test_2_all.deb" in shown
    workspace.up_well()
    assert installed(machine) == "2"
    workspace.unchanged()
    done = workspace.destroy()
    assert done.code == 0, done.errors or done.text
    assert machine.found() == before
    assert installed(machine) == "2"  # other servers may use it
    assert machine.root('[ ! -e "$1" ] || echo there', PLACE) == ""
