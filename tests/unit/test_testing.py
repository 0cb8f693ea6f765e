"""Directories and ports of test clusters, and what the pytest plugin is told."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap.ports import free_ports
from tde_replication.errors import UserError
from tde_replication.testing import directories, plugin, temporary


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def entries() -> list[str]:
    return sorted(path.name for path in directories.root().iterdir())


def test_a_directory_that_is_in_use_is_nobody_elses() -> None:
    with directories.new() as (place, _):
        assert place.stat().st_mode & 0o777 == 0o711
        assert list(directories.left()) == []
        directories.remove(place)
    assert entries() == ["ports"]


def test_a_directory_that_was_left_is_found_once_and_forgotten_when_it_is_gone() -> None:
    with directories.new() as (place, _):
        pass
    found = directories.left()
    assert next(found) == place
    assert list(directories.left()) == []  # another process, meanwhile
    directories.remove(place)
    assert list(found) == []
    assert entries() == ["ports"]


def test_a_sweep_that_comes_between_a_file_and_its_lock_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, swept = directories._lock, list[Path]()

    def late(file: Path) -> int | None:
        if swept or file.parent != directories.root():
            return lock(file)
        file.touch()
        swept.append(file.with_suffix(""))
        sweep = directories.left()
        assert next(sweep) == swept[0]
        found = lock(file)
        assert list(sweep) == []
        return found

    monkeypatch.setattr(directories, "_lock", late)
    with directories.new() as (place, _):
        assert swept
        assert place not in swept
        directories.remove(place)
    assert entries() == ["ports"]


@pytest.mark.parametrize("mode", [0o777, 0o731])
def test_a_directory_that_others_may_change_is_refused(mode: int) -> None:
    directories.root().chmod(mode)
    with pytest.raises(UserError, match="is not a directory that this user alone may change"):
        directories.root()


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"tde-tests-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is not a directory"):
        directories.root()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A range of two ports, of which somebody has the first; not of those that the kernel gives to others meanwhile."""
    port = next(port for port in free_ports(100) if directories._is_free(port + 1))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        monkeypatch.setattr(directories, "PORTS", range(port, port + 2))
        yield port


def test_ports_are_free_and_of_one_cluster_alone(few: int) -> None:
    with directories.ports(1) as one:
        assert one == [few + 1]
        with pytest.raises(UserError, match="no 1 free ports"), directories.ports(1):
            pass
    (directories.root() / "ports" / str(few + 1)).touch()  # as a process that was killed leaves it
    with directories.ports(1) as again:
        assert again == one


def test_a_cluster_without_a_vault_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    with pytest.raises(UserError, match="set VAULT_ADDR and VAULT_TOKEN"), temporary.cluster():
        pass
    assert entries() == []


def run(directory: Path, *options: str) -> str:
    (directory / "test_it.py").write_text("def test_it(encrypted_cluster):\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "tde_replication.testing.plugin", "-p", "no:cacheprovider"]
    components = str(Path(plugin.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": components, "TMPDIR": str(directory), "VAULT_ADDR": ""}
    return subprocess.run(
        [*command, *options], cwd=directory, env=environment, capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("tde_scope=always", 'tde_scope: "always" is not one of session, package, module, class, function'),
        ("tde_standbys=two", 'tde_standbys: "two" is not a number'),
        ("tde_cluster=[1]", "tde_cluster: '[1]' is not a mapping in YAML"),
        ("tde_cluster={", "tde_cluster: '{' is not a mapping in YAML"),
        ("tde_scope=module", "a test cluster needs a Vault"),
    ],
)
def test_options_of_the_ini_file(tmp_path: Path, option: str, told: str) -> None:
    assert told in run(tmp_path, "-o", option)


def test_the_plugin_loads_nothing_until_a_cluster_is_asked_for() -> None:
    """Not even the package's own modules: every pytest of the environment loads it."""
    program = "import sys, pytest; before = set(sys.modules); import tde_replication.testing.plugin; "
    program += "print(*sorted(set(sys.modules) - before))"
    environment = {**os.environ, "PYTHONPATH": str(Path(plugin.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tde_replication", "tde_replication.testing", "tde_replication.testing.plugin"]
