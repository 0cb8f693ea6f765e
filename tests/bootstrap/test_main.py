"""What is refused before anything is made."""

import subprocess
import sys

import pytest

from bootstrap import __main__ as command
from bootstrap.project import HERE, BootstrapError, Project
from bootstrap.stack import Stack


@pytest.mark.parametrize("step", ["up", "preview", "drift"])
def test_a_stack_without_a_file_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    for name in ("orders", "staging"):
        (project.root / "stacks" / f"Pulumi.{name}.yaml").touch()
    monkeypatch.setattr(command, "HERE", project)
    told = r"there is no stacks/Pulumi\.ordres\.yaml: write it, or set STACK to one of orders, staging"
    with pytest.raises(BootstrapError, match=told):
        command.main(["--stack", "ordres", step])
    assert not project.local.exists()


def test_a_destroy_that_cannot_use_the_vault_is_told_so_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refresh would fail once for each resource; a stack whose Vault is the embedded one starts that instead."""
    (project.root / "stacks" / "Pulumi.orders.yaml").touch()
    monkeypatch.setattr(command, "why_unusable", lambda *_: "it is sealed")
    away = Stack(project, "orders", {}, embedded_vault=False)
    with pytest.raises(BootstrapError, match=r"it is sealed \(where it is gone for good: docs/teardown\.md\)"):
        command._perform("destroy", [], away, {}, own_backend=True)
    assert command._why_unusable(Stack(project, "orders", {}, embedded_vault=True), "destroy") is None
    assert command._why_unusable(Stack(project, "gone", {}, embedded_vault=False), "destroy") is None


@pytest.mark.parametrize("module", ["bootstrap.__main__", "tde_replication.review.__main__"])
def test_a_python_without_any_package_is_enough(module: str) -> None:
    """For `make` on a fresh machine, which makes the virtual environment; and for the jobs of a workflow that run a review."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import {module}"],
        cwd=HERE.root,
        env={"PYTHONPATH": f"{HERE.root}:{HERE.root / 'components'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
