"""The program of the project's own stacks."""

import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pulumi
import pytest

from tde_replication import configuration
from tde_replication.errors import UserError

PROGRAM = Path(__file__).resolve().parents[2] / "__main__.py"
TOLD = 32
WAITING = f"""
import runpy, time
import pulumi, tde_replication

def wait(*_, **__):
    print("waits", flush=True)
    time.sleep(60)

pulumi.get_stack = lambda: "trial"
tde_replication.EncryptedReplication = wait
runpy.run_path({str(PROGRAM)!r})
"""


def test_a_mistake_is_one_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Pulumi's own Python host adds another one to any status but this."""

    def refuse(*_: object) -> None:
        raise UserError("stacks/Pulumi.trial.yaml has 1 mistake")

    monkeypatch.setattr(pulumi, "get_stack", lambda: "trial")
    monkeypatch.setattr(pulumi, "get_project", lambda: "trial")
    monkeypatch.setattr(configuration, "read", refuse)
    # Where other tests have put mocks in the engine's place, the text would go there.
    monkeypatch.setattr(pulumi.log, "error", lambda text: sys.stderr.write(f"error: {text}\n"))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PROGRAM))
    assert ended.value.code == TOLD
    assert capsys.readouterr().err == "error: stacks/Pulumi.trial.yaml has 1 mistake\n"


def test_ctrl_c_ends_it_without_a_word() -> None:
    """Pulumi's own Python host starts it as a process, and the engine has said what happened."""
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)
    assert (process.returncode, *said) == (TOLD, "", "")
