"""Which stacks a pull request concerns."""

import io
import sys
from pathlib import Path

import pytest

from tde_replication.errors import UserError
from tde_replication.review.stacks import concerned, main

STACKS = {"orders", "billing"}


@pytest.mark.parametrize(
    ("changed", "stacks"),
    [
        ([], []),
        (["stacks/Pulumi.orders.yaml"], ["orders"]),
        (["stacks/Pulumi.gone.yaml"], []),
        (["README.md", "docs/x.md", "tests/unit/a.py", ".github/workflows/ci.yml", "stacks/README.md"], []),
        *(
            ([one], ["billing", "orders"])
            for one in ("__main__.py", "Pulumi.yaml", "requirements.txt", "components/a.py", "stacks/known_hosts")
        ),
    ],
)
def test_a_stack_file_concerns_its_stack_and_the_program_all(changed: list[str], stacks: list[str]) -> None:
    assert concerned(changed, STACKS) == stacks


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="is not the name of a stack"):
        concerned(["stacks/Pulumi.$(id).yaml"], {"$(id)"})


def test_the_list_is_json_without_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stacks").mkdir()
    for name in ("local", "orders"):
        (tmp_path / "stacks" / f"Pulumi.{name}.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("__main__.py\n"))
    assert main(["local"]) == 0
    assert capsys.readouterr().out == '["orders"]\n'
