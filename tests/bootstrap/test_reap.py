"""`make reap` in a checkout: each stack goes as `make destroy` takes it away, without a question."""

import sys
from pathlib import Path

import pytest

from bootstrap import __main__ as command, environment, reap
from bootstrap.project import Project
from tests.bootstrap.commands import Commands


@pytest.mark.parametrize(
    ("stack", "forgotten"),
    [("local", ""), ("organization/trial/orders", "stack rm organization/trial/orders --yes --preserve-config\n")],
)
def test_a_stack_is_destroyed_without_a_question_and_forgotten(
    project: Project, commands: Commands, monkeypatch: pytest.MonkeyPatch, stack: str, forgotten: str
) -> None:
    calls = commands.directory / "calls"
    python = commands.add(
        "python", f'echo "$* $PULUMI_SKIP_CONFIRMATIONS" >>"{calls}"; echo "left behind: Server db1 (it is off)"'
    )
    commands.add("pulumi", f'shift; echo "$*" >>"{calls}"')
    monkeypatch.setattr(reap, "HERE", project)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", commands.environ()["PATH"])
    done = reap.destroy(stack)
    assert (done.returncode, done.stdout) == (0, "left behind: Server db1 (it is off)\n")
    name = Path(stack).name
    assert calls.read_text() == f"-m bootstrap --stack {name} destroy true\n{forgotten}"

    commands.add("python", "echo why; exit 3")
    calls.unlink()
    assert reap.destroy(stack).stdout == "why\n"
    assert not calls.exists()


def test_no_engine_is_made_to_find_no_stacks(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "HERE", project)
    monkeypatch.setattr(environment, "has_backend", lambda _: False)
    assert command.main(["reap"]) == 0
    assert capsys.readouterr().err == "there are no stacks\n"
    assert not project.local.exists()
