import json
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from bootstrap import plugins
from bootstrap.engine import Engine
from bootstrap.project import STAND_IN, Project
from tests.bootstrap.commands import Commands

INSTALL = """
[ "$1 $2 $3" = "plugin install resource" ] || exit 9
to=$PULUMI_HOME/plugins/resource-$4-v$5; name=$4; echo "$*" >> "$0.calls"; mkdir -p "$to"
while [ $# -gt 1 ]; do shift; done
case "$1" in /*) cp "$1" "$to/" ;; *) printf ELF > "$to/pulumi-resource-$name" ;; esac"""
VAULT = "resource-vault-v7.14.0/pulumi-resource-vault"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plugins, "account_home", lambda: tmp_path / "user")
    return tmp_path / "user" / ".pulumi"


@pytest.fixture
def reachable(home: Path, site: dict[str, bytes]) -> Path:
    """Find Pulumi's site there; the user's home."""
    for name, version in (("vault", "7.14.0"), ("docker", "5.2.0")):
        assets = [
            {"name": f"pulumi-resource-{name}-v{version}-linux-{architecture}.tar.gz", "digest": f"sha256:{name}"}
            for architecture in ("amd64", "arm64")
        ]
        site[f"/repos/pulumi/pulumi-{name}/releases/tags/v{version}"] = json.dumps({"assets": assets}).encode()
    return home


@pytest.fixture
def chosen(project: Project, commands: Commands) -> Engine:
    commands.add("pulumi", INSTALL)
    for name, version in (("vault", "7.14.0"), ("docker", "5.2.0")):
        package = project.venv / "lib" / "python3.11" / "site-packages" / f"pulumi_{name}"
        package.mkdir(parents=True)
        (package / "pulumi-plugin.json").write_text(json.dumps({"resource": True, "name": name, "version": version}))
    (project.root / "offline" / "plugins" / "vault.py").write_text("")
    return Engine(commands.directory, "")


def test_a_stand_in_never_gets_into_the_users_own_cache(
    project: Project, commands: Commands, chosen: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plugins.ensure(project, chosen, commands.environ())
    assert found.home == project.home
    assert found.stand_ins == "vault 7.14.0"
    assert not home.exists()
    said = capsys.readouterr().err
    assert "offline stand-in for vault 7.14.0" in said
    assert "none for docker 5.2.0" in said


def test_the_launcher_runs_the_source_here_on_the_venv(project: Project, commands: Commands, chosen: Engine) -> None:
    Commands(project.venv / "bin").add("python", 'printf "%s|" "$@"')
    found = plugins.ensure(project, chosen, commands.environ())
    done = subprocess.run([found.home / "plugins" / VAULT, "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{project.root}/offline/plugins/vault.py|a b|"


def test_a_stand_in_never_gets_into_a_home_that_the_user_has_named(
    project: Project, commands: Commands, chosen: Engine, tmp_path: Path
) -> None:
    found = plugins.ensure(project, chosen, commands.environ(PULUMI_HOME=str(tmp_path / "own")))
    assert found.home == project.home
    assert not (tmp_path / "own").exists()


def test_a_home_that_the_user_has_named_is_used_for_official_ones(
    project: Project, commands: Commands, chosen: Engine, reachable: Path, tmp_path: Path
) -> None:
    found = plugins.ensure(project, chosen, commands.environ(PULUMI_HOME=str(tmp_path / "own")))
    assert (found.home, found.stand_ins) == (tmp_path / "own", "")
    assert not reachable.exists()


def test_a_stand_in_that_an_earlier_version_left_in_the_users_home_is_taken_out(
    project: Project, commands: Commands, chosen: Engine, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = home / "plugins" / VAULT
    stale.parent.mkdir(parents=True)
    stale.write_text(f"#!/bin/sh\n{STAND_IN}\nexec elsewhere\n")
    found = plugins.ensure(project, chosen, commands.environ())
    assert (found.home, found.stand_ins) == (project.home, "vault 7.14.0")
    assert not stale.parent.exists()
    assert f"removed the offline stand-in for vault 7.14.0 from {home}" in capsys.readouterr().err


def test_an_official_one_put_in_the_place_of_a_stand_in_is_used(
    project: Project, commands: Commands, chosen: Engine
) -> None:
    """By `pulumi plugin install --reinstall --file`, in a shell that has sourced env.sh."""
    assert plugins.ensure(project, chosen, commands.environ()).stand_ins == "vault 7.14.0"
    (project.home / "plugins" / VAULT).write_text("ELF")
    for _ in range(2):
        assert plugins.ensure(project, chosen, commands.environ()) == plugins.Plugins(project.home, "")
    assert (project.home / "plugins" / VAULT).read_text() == "ELF"


def test_an_official_one_that_comes_into_the_users_home_is_used(
    project: Project, commands: Commands, chosen: Engine, home: Path
) -> None:
    assert plugins.ensure(project, chosen, commands.environ()).stand_ins == "vault 7.14.0"
    (home / "plugins" / VAULT).parent.mkdir(parents=True)
    (home / "plugins" / VAULT).write_text("ELF")
    assert plugins.ensure(project, chosen, commands.environ()) == plugins.Plugins(home, "")
    (home / "plugins" / VAULT).unlink()
    assert plugins.ensure(project, chosen, commands.environ()).stand_ins == "vault 7.14.0"


def test_the_home_is_the_accounts_and_not_that_of_a_variable(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engine takes it from there."""
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plugins.own_home({}) == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".pulumi"
    assert plugins.own_home({"PULUMI_HOME": "/elsewhere"}) == Path("/elsewhere")
    del project


def test_an_official_plugin_in_the_cache_is_used(
    project: Project, commands: Commands, chosen: Engine, home: Path
) -> None:
    official = home / "plugins" / VAULT
    official.parent.mkdir(parents=True)
    official.write_text("ELF")
    found = plugins.ensure(project, chosen, commands.environ())
    assert (found.home, found.stand_ins) == (home, "")


def test_official_plugins_are_downloaded_where_they_can_be(
    project: Project, commands: Commands, chosen: Engine, reachable: Path
) -> None:
    found = plugins.ensure(project, chosen, commands.environ())
    assert (found.home, found.stand_ins) == (reachable, "")
    assert (reachable / "plugins" / VAULT).read_text() == "ELF"
    calls = (commands.directory / "pulumi.calls").read_text().splitlines()
    assert calls == [
        "plugin install resource docker 5.2.0 --checksum docker",
        "plugin install resource vault 7.14.0 --checksum vault",
    ]


def test_a_stand_in_where_only_that_download_fails(
    project: Project, commands: Commands, chosen: Engine, reachable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.add("pulumi", f'case "$*" in *" 7.14.0 --checksum "*) echo 403; exit 1;; esac\n{INSTALL}')
    found = plugins.ensure(project, chosen, commands.environ())
    assert (found.home, found.stand_ins) == (project.home, "vault 7.14.0")
    assert "plugin install of vault 7.14.0 failed:\n403" in capsys.readouterr().err
    docker = "plugins/resource-docker-v5.2.0/pulumi-resource-docker"
    assert (reachable / docker).read_text() == (found.home / docker).read_text() == "ELF"


def test_run_again_it_installs_nothing(project: Project, commands: Commands, chosen: Engine) -> None:
    for _ in range(3):
        plugins.ensure(project, chosen, commands.environ())
    assert len((commands.directory / "pulumi.calls").read_text().splitlines()) == 1
    (project.home / "plugins" / VAULT).unlink()
    (project.home / "plugins" / VAULT).parent.rmdir()
    plugins.ensure(project, chosen, commands.environ())
    assert (project.home / "plugins" / VAULT).exists()
