"""The program of the project's own stacks."""

import runpy
import sys
from pathlib import Path

import pulumi
import pytest

from tde_replication import stack_file
from tde_replication.errors import UserError

PROGRAM = Path(__file__).resolve().parents[2] / "__main__.py"
TOLD = 32


def test_a_mistake_is_one_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Pulumi's own Python host adds another one to any status but this."""

    def refuse(*_: object) -> None:
        raise UserError("stacks/Pulumi.trial.yaml has 1 mistake")

    monkeypatch.setattr(pulumi, "get_stack", lambda: "trial")
    monkeypatch.setattr(pulumi, "get_project", lambda: "trial")
    monkeypatch.setattr(stack_file, "read", refuse)
    # Where other tests have put mocks in the engine's place, the text would go there.
    monkeypatch.setattr(pulumi.log, "error", lambda text: sys.stderr.write(f"error: {text}\n"))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PROGRAM))
    assert ended.value.code == TOLD
    assert capsys.readouterr().err == "error: stacks/Pulumi.trial.yaml has 1 mistake\n"
