"""Which policies a stack is under, and what Pulumi is asked then. The pack itself runs in tests/engine/test_policies.py."""

from pathlib import Path

import pytest

from bootstrap import policies
from bootstrap.project import BootstrapError, Project
from tde_replication import review
from tde_replication.errors import UserError
from tde_replication.records import Cost
from tests.bootstrap.commands import Commands
from tests.bootstrap.test_stack_commands import Trial
from tests.unit.previews import Stream, changed, server

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
    trial.writes(RESTART)
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


def test_the_environment_of_a_run_outranks_what_the_stack_file_names(trial: Trial) -> None:
    under(trial.project, "lax")
    trial.writes(RESTART)
    for name in ("strict", ""):
        before = len(trial.asked)
        trial.stack("production", embedded_vault=False, PULUMI_SKIP_CONFIRMATIONS="true", POLICIES=name).up()
        asked = [call for call in trial.asked[before:] if call.startswith(("preview", "up"))]
        assert [call.split()[0] for call in asked] == ["preview", "up"]
        assert all(f"policies/{name or 'lax'}.json --stack" in call for call in asked)
    with pytest.raises(BootstrapError, match=r"^POLICIES names the policies nowhere: there are lax, strict "):
        trial.stack("production", embedded_vault=False, PULUMI_SKIP_CONFIRMATIONS="true", POLICIES="nowhere").up()


@pytest.mark.parametrize(
    "text", ["config: {tde-replication:policies: strict}\n", "config:\n  tde-replication:policies:\n"]
)
def test_policies_that_are_not_found_in_the_stack_file_are_not_left_out(trial: Trial, text: str) -> None:
    (trial.project.root / "stacks" / "Pulumi.production.yaml").write_text(text)
    with pytest.raises(BootstrapError, match="tde-replication:policies must be a line of its own below config"):
        stack(trial)
    assert not [call for call in trial.asked if call.startswith(("preview", "up"))]


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


def update(trial: Trial, events: str, plan: str, name: str = "production") -> int:
    trial.writes(events)
    return trial.stack(name, embedded_vault=False, REVIEWED=plan).up()


def test_an_update_with_the_plan_that_was_reviewed_asks_nobody(trial: Trial) -> None:
    assert update(trial, RESTART, review.digest(review.review(review.read(RESTART)))) == 0
    assert [call.split()[0] for call in trial.asked if call.startswith(("preview", "up"))] == ["preview", "up"]


@pytest.mark.parametrize("plan", ["", "f852f7cad3fdf8a5ff596d94bb14f6763e9bdcc5"])
@pytest.mark.parametrize("name", ["production", "local"])
def test_an_update_with_another_plan_is_refused(trial: Trial, plan: str, name: str) -> None:
    with pytest.raises(BootstrapError, match=r"has not been reviewed: .* Nothing was changed. Review it again"):
        update(trial, RESTART, plan, name)
    assert not [call for call in trial.asked if call.startswith("up")]


def test_an_update_that_has_nothing_to_do_needs_no_review(trial: Trial) -> None:
    same = server("db1")
    done = Stream("production").refresh("Server", "db1", same, same).plan("same", "Server", "db1", same, same)
    assert update(trial, done.text, "f852f7cad3fdf8a5ff596d94bb14f6763e9bdcc5") == 0


def test_a_preview_of_which_nothing_is_known_is_not_one_that_was_reviewed(trial: Trial) -> None:
    with pytest.raises(BootstrapError, match="has not been reviewed"):
        update(trial, "", "")
