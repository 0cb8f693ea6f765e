"""Which server of this machine is used."""

from pathlib import Path

import pytest

from components.errors import Problem
from components.hosts import installation
from components.hosts.installation import find_installation
from tests.graph.graph import installation as installed


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 127\n", "#!/nowhere\n"])
def test_one_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(installation, "INSTALLED", (f"{tmp_path}/*/bin",))
    good = installed(tmp_path / "17", pg_tde=False, version="17.2")
    broken = installed(tmp_path / "18", pg_tde=True)
    (broken / "postgres").write_text(script)
    assert find_installation(tmp_path, None, 17).binaries == good
    with pytest.raises(Problem, match="18/bin holds no PostgreSQL server"):
        find_installation(tmp_path, str(broken), 17)


def test_programs_by_a_link_have_the_extensions_beside_their_own_place(tmp_path: Path) -> None:
    real = installed(tmp_path / "real", pg_tde=True)
    (tmp_path / "linked").symlink_to(real)
    assert find_installation(tmp_path, str(tmp_path / "linked"), 17).has_pg_tde
