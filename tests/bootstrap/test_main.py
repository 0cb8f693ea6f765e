"""What is refused before anything is made."""

import pytest

from bootstrap import __main__ as command
from bootstrap.project import BootstrapError, Project


@pytest.mark.parametrize("step", ["up", "preview", "drift"])
def test_a_stack_without_a_file_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    for name in ("orders", "staging"):
        (project.root / "stacks" / f"Pulumi.{name}.yaml").touch()
    monkeypatch.setattr(command, "HERE", project)
    told = r"there is no stacks/Pulumi\.ordres\.yaml: write it, or set STACK to one of orders, staging"
    with pytest.raises(BootstrapError, match=told):
        command.main(["--stack", "ordres", step])
    assert not project.local.exists()
