"""Which policies a stack is under, and what Pulumi is asked then. The pack itself runs in tests/engine/test_policies.py."""

from pathlib import Path

import pytest

from bootstrap import policies
from bootstrap.project import BootstrapError, Project
from tde_replication.errors import UserError
from tde_replication.records import Cost
from tests.bootstrap.commands import Commands
from tests.bootstrap.test_stack_commands import Trial
from tests.unit.previews import Stream, changed

RESTART = changed(
    Stream("production").record(Cost(kind="restart", server="db1", of="Server")), max_connections="9"
).text


@pytest.fixture
def trial(project: Project, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setattr(policies, "ensure", lambda _: None)
    (project.root / "policies").mkdir()
    under(project, "strict")
    return Trial(project, commands)


def under(project: Project, name: str, rules: str = '{"primary-in-window": {"windows": ["00:00-00:00"]}}') -> Path:
    """Have such an environment, and the stack file name it."""
    settings = project.root / "stacks" / "Pulumi.production.yaml"
    settings.write_text(f"config:\n  tde-replication:policies: {name}\n  tde-replication:cluster: {{}}\n")
    file = project.root / "policies" / f"{Path(name).name}.json"
    file.write_text(rules)
    return file


def stack(trial: Trial) -> list[str]:
    trial.previews(RESTART)
    trial.stack("production", embedded_vault=False, PULUMI_SKIP_CONFIRMATIONS="true").up()
    return trial.asked


def test_a_preview_and_an_update_run_the_pack_with_the_environment_of_the_stack(trial: Trial) -> None:
    file = trial.project.root / "policies" / "strict.json"
    wanted = f"--policy-pack {file.parent} --policy-pack-config {file} --stack production"
    asked = [call for call in stack(trial) if call.startswith(("preview", "up"))]
    assert [call.split()[0] for call in asked] == ["preview", "up"]
    assert all(call.endswith(wanted) for call in asked)


def test_a_cost_that_a_policy_refuses_updates_nothing(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    under(trial.project, "strict", '{"primary-in-window": {"windows": ["Mon 00:00-00:01"]}}')
    assert not [call for call in stack(trial) if call.startswith("up")]
    assert "production: is refused by policy primary-in-window" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../strict", "nowhere", "/etc/strict"])
def test_a_stack_file_names_an_environment_and_no_path(trial: Trial, name: str) -> None:
    settings = trial.project.root / "stacks" / "Pulumi.production.yaml"
    settings.write_text(f"config:\n  tde-replication:policies: {name}\n")
    with pytest.raises(BootstrapError, match=f"names the policies {name}: there are strict "):
        stack(trial)
    assert not [call for call in trial.asked if call.startswith(("preview", "up"))]


def test_a_mistake_in_an_environment_is_told_before_anything_is_asked(trial: Trial) -> None:
    under(trial.project, "strict", '{"clone-size": {"most": "much"}}')
    with pytest.raises(UserError, match=r"clone-size\.most: 'much' is not a size"):
        stack(trial)
    assert not [call for call in trial.asked if call.startswith(("preview", "up"))]
