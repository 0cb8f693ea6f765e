"""A `pulumi` by hand: the shell's function asks for the stack's Vault first, and only where Pulumi would need it."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bootstrap import by_hand, environment
from bootstrap.ports import free_ports
from bootstrap.project import HERE, Project
from bootstrap.stack import Stack
from tests.bootstrap.commands import Commands

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"there is no {shell} here"))
    for shell in ("bash", "zsh")
]


@pytest.fixture
def asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stack files for which the Vault was looked at; it is never usable."""
    for name in ("local", "orders"):
        (project.root / "stacks" / f"Pulumi.{name}.yaml").touch()
    names: list[str] = []

    def refuse(file: Path, _environ: object) -> str:
        names.append(file.name)
        return "it is sealed"

    monkeypatch.setattr(by_hand, "why_unusable", refuse)
    monkeypatch.setattr(by_hand, "_selected", lambda _project: "local")
    return names


@pytest.mark.parametrize(
    ("line", "stack"),
    [
        ("preview", "local"),
        ("up --yes -s orders", "orders"),
        ("-s orders refresh", "orders"),
        ("--stack=orders preview --diff", "orders"),
        ("preview --stack organization/tde-replication/orders", "orders"),
        ("preview -sorders", "orders"),
        ("--color never -v 9 pre", "local"),
        ("-C stacks up", "local"),
        ("up --refresh=true", "local"),
    ],
)
def test_a_command_that_refreshes_asks_for_its_stack(project: Project, asked: list[str], line: str, stack: str) -> None:
    assert by_hand.why_not(project, project.root, shlex.split(line), {}) == "it is sealed"
    assert asked == [f"Pulumi.{stack}.yaml"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--help",
        "stack output up",
        "stack -s orders select preview",
        "config set cluster up",
        "up --help",
        "destroy --refresh=false --continue-on-error",
        "-C / preview",
        "preview -s nothing-of-this-name",
    ],
)
def test_any_other_does_not(project: Project, asked: list[str], line: str) -> None:
    assert by_hand.why_not(project, project.root, shlex.split(line), {}) is None
    assert asked == []


def test_another_project_in_the_same_shell_is_left_alone(project: Project, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "Pulumi.yaml").touch()
    assert by_hand.why_not(project, tmp_path / "theirs", ["up"], {}) is None
    assert by_hand.why_not(project, tmp_path / "theirs", ["-C", str(project.root), "up"], {})
    assert len(asked) == 1


def test_the_environment_may_name_the_stack(project: Project, asked: list[str]) -> None:
    assert by_hand.why_not(project, project.root, ["up"], {"PULUMI_STACK": "orders"})
    assert asked == ["Pulumi.orders.yaml"]


def test_a_destroy_is_told_the_way_out(project: Project, asked: list[str]) -> None:
    told = by_hand.why_not(project, project.root, ["destroy"], {})
    assert asked
    assert told == "it is sealed (where it is gone for good: docs/teardown.md)"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("fit", [True, False])
def test_the_function_of_the_shell(shell: str, *, fit: bool, project: Project, commands: Commands) -> None:
    """Also beside an alias, in any directory, with any words; it ends as Pulumi does."""
    show = 'printf "<%s>" "$PWD" "$@"; echo'
    Commands(project.venv / "bin").add("python", f"{show}; {'true' if fit else 'false'}")
    commands.add("pulumi", f"{show}; exit 7")
    # Each read on its own, as a person's lines are.
    lines = ["alias pulumi='pulumi --color never'", environment.asking_first(project), "pulumi up 'a b'; echo $?"]
    script = "shopt -s expand_aliases 2>/dev/null\n" + "\n".join(f"eval {shlex.quote(line)}" for line in lines)
    done = subprocess.run(
        [shell, "-c", script], cwd="/usr", env=commands.environ(), capture_output=True, text=True, check=True
    )
    question = f"<{project.root}><-m><bootstrap.by_hand><before></usr><--color><never><up><a b>"
    answer = ["</usr><--color><never><up><a b>", "7"] if fit else ["1"]
    assert done.stdout.splitlines() == [question, *answer], done.stderr


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("line", "status", "tidied"), [("destroy -y", 0, True), ("up", 0, False), ("dn", 3, False)])
def test_the_function_of_the_shell_looks_at_what_a_destroy_has_left(
    shell: str, line: str, status: int, *, tidied: bool, project: Project, commands: Commands
) -> None:
    Commands(project.venv / "bin").add("python", 'echo "$3"')
    commands.add("pulumi", f"exit {status}")
    script = f"{environment.asking_first(project)}\npulumi {line}"
    done = subprocess.run([shell, "-c", script], env=commands.environ(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (status, ["before", "after"] if tidied else ["before"]), (
        done.stderr
    )


def test_only_a_destroy_of_this_project_is_tidied(
    project: Project, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[str] = []

    def forget(stack: Stack) -> int:
        forgotten.append(stack.name)
        return 0

    monkeypatch.setattr(Stack, "forget_pending", forget)
    assert by_hand.tidy(project, project.root, ["-s", "orders", "up"], commands.environ()) == 0
    (tmp_path / "theirs").mkdir()
    assert by_hand.tidy(project, tmp_path / "theirs", ["-s", "orders", "destroy"], commands.environ()) == 0
    assert forgotten == []
    assert by_hand.tidy(project, project.root, ["-s", "orders", "destroy"], commands.environ()) == 0
    assert forgotten == ["orders"]


def test_a_vault_that_is_away_is_one_sentence_and_pulumi_is_not_called(commands: Commands) -> None:
    """By the real thing: this checkout's stack `local`, and a Vault that nobody has started."""
    commands.add("pulumi", "echo called")
    address = f"https://127.0.0.1:{free_ports(1, '127.0.0.1')[0]}"
    environ = commands.environ(HOME=str(HERE.root), VAULT_ADDR=address, VAULT_TOKEN="hvs.mine")
    script = f"{environment.asking_first(HERE)}\npulumi preview -s local"
    done = subprocess.run(
        ["bash", "-c", script], cwd=HERE.root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: nothing listens at {address}: start that Vault and run this again")
    environ.pop("VAULT_ADDR")
    done = subprocess.run(
        ["bash", "-c", script], cwd=HERE.root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("error: Pulumi.local.yaml names no vault:address, and VAULT_ADDR is not set")
    assert os.linesep not in done.stderr.strip()
