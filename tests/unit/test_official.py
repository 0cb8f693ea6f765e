"""Whether the tests run on Pulumi's own programs."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from bootstrap.engine import LANGUAGE_HOST
from bootstrap.plugins import Plugin
from bootstrap.project import STAND_IN
from tests import official


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine that has all of them; they are compiled."""
    plugins = [Plugin(name, version(f"pulumi-{name}")).binary(tmp_path) for name in official.PLUGINS]
    for place in (tmp_path / "pulumi", tmp_path / LANGUAGE_HOST, *plugins):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\x7fELF")
        place.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.setattr(official, "account_home", lambda: tmp_path / "nobody")
    official.has_official_host.cache_clear()
    yield tmp_path
    official.has_official_host.cache_clear()


def test_nothing_is_missing_where_all_are_pulumis_own(programs: Path) -> None:
    del programs
    assert official.missing() == []


def test_a_stand_in_is_named(programs: Path) -> None:
    script = f"#!/bin/sh\n{STAND_IN}\n"
    (programs / LANGUAGE_HOST).write_text(script)
    Plugin("vault", version("pulumi-vault")).binary(programs).write_text(script)
    assert official.missing() == ["language host", "pulumi-vault"]
