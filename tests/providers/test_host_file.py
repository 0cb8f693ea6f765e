"""Small files that a server reads."""

import os
from pathlib import Path
from typing import Any

import pytest

from tde_replication.errors import Conflict, UserError
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.postgres.host_file import HostFile

CONTENT = "hvs.token:with\\everything'\n"


def file(root: Path, name: str = "a token's 100%", **fields: Any) -> HostFile:
    return HostFile.model_validate({"host": "local", "path": str(root / "files" / name), "content": CONTENT} | fields)


def test_from_nothing_to_nothing(root: Path) -> None:
    declared = file(root)
    assert declared.read() is None
    made = declared.create()
    assert made.read() == made
    assert Path(declared.path).read_text() == CONTENT
    assert (Path(declared.path).stat().st_mode & 0o7777, Path(declared.path).owner()) == (0o600, LocalHost().account)
    assert declared.create() == made
    made.delete()
    assert declared.read() is None
    made.delete()


@pytest.mark.parametrize("content", ["other", "", CONTENT + " ", CONTENT[:-1]])
def test_other_content(root: Path, content: str) -> None:
    declared = file(root)
    declared.create()
    Path(declared.path).write_text(content)
    repaired(declared, "content_matches", shown=False)


def test_loose_rights(root: Path) -> None:
    declared = file(root)
    declared.create()
    Path(declared.path).chmod(0o644)
    repaired(declared, "mode", shown="0644")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_owner(root: Path) -> None:
    declared = file(root)
    declared.create()
    os.chown(declared.path, 0, 0)
    # Files are read as the account, which another one's mode 0600 keeps out.
    repaired(declared, "owner", "content_matches", shown="root")


def test_a_file_that_cannot_be_read_is_another_owners(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for an account that is not root."""
    declared = file(root)
    declared.create()

    def refused(*_: object) -> bytes:
        raise UserError("reading it failed: Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(LocalHost, "read", refused)
        live = declared.read()
    assert live
    assert declared.changed(live) == {"content_matches"}


def repaired(declared: HostFile, field: str, *more: str, shown: object) -> None:
    live = declared.read()
    assert live is not None
    assert declared.changed(live) == {field, *more}
    assert getattr(live, field) == shown
    declared.update(live)
    assert declared.read() == declared


def test_a_directory_in_its_place_is_left_as_it_is(root: Path) -> None:
    declared = file(root, "directory")
    precious = Path(declared.path) / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    live = declared.read()
    assert live is not None
    assert declared.changed(live) == {"owner", "content_matches"}
    with pytest.raises(Conflict, match="is a directory: it is left as it is"):
        declared.create()
    with pytest.raises(Conflict, match="is a directory: it is left as it is"):
        declared.update(live)
    declared.delete()
    assert precious.exists()


def test_its_content_is_in_no_text_of_it(root: Path) -> None:
    declared = file(root, "secret")
    made = declared.create()
    Path(declared.path).write_text("something else")
    live = made.read()
    assert "hvs" not in f"{declared!r}{made!r}{live!r}"
    made.delete()
