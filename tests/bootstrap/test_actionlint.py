"""The linter of workflows: built once, and skipped aloud where it cannot be had."""

import pytest

from bootstrap.actionlint import MODULE, VERSION, actionlint
from bootstrap.project import Project
from tests.bootstrap.commands import Commands

BUILD = """
echo "$*" >>"${0%/*}/asked"
mkdir -p "$GOBIN"
printf '#!/bin/sh\\npwd >&2; exit 3\\n' >"$GOBIN/actionlint"
chmod +x "$GOBIN/actionlint"
"""


def test_it_is_built_once_and_its_status_counts(
    project: Project, commands: Commands, capfd: pytest.CaptureFixture[str]
) -> None:
    commands.add("go", BUILD)
    for _ in range(2):
        assert actionlint(project, commands.environ()) == 3
        assert str(project.root) in capfd.readouterr().err
    assert (commands.directory / "asked").read_text() == f"install {MODULE}@v{VERSION}\n"


def test_without_go_it_is_skipped(project: Project, commands: Commands, capfd: pytest.CaptureFixture[str]) -> None:
    assert actionlint(project, {"PATH": str(commands.directory)}) == 0
    assert "actionlint: SKIPPED: there is no Go" in capfd.readouterr().err


def test_where_its_modules_cannot_be_had_it_is_skipped(
    project: Project, commands: Commands, capfd: pytest.CaptureFixture[str]
) -> None:
    commands.add("go", "echo dial tcp: lookup proxy.golang.org: no such host >&2; exit 1")
    assert actionlint(project, commands.environ()) == 0
    assert "actionlint: SKIPPED: go install failed:\ndial tcp" in capfd.readouterr().err
