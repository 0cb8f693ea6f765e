"""The walk-throughs of CONTRIBUTING.md lead to files and names that are there."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "components" / "tde_replication"
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLE = re.compile(r"database_comment|DatabaseComment|\blab\b|\bLab\b|walSenderTimeout|wal_sender_timeout")
"""What the walk-throughs make."""
FILE_COLUMN, TEXT_COLUMN = 1, 2


def quoted(text: str) -> list[str]:
    return [one for one in re.findall(r"`([^`]+)`", text) if not EXAMPLE.search(one)]


def is_path(text: str) -> bool:
    return re.fullmatch(r"\w[\w./-]*", text) is not None and ("/" in text or text.endswith((".py", ".md")))


def is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text) is not None and not is_path(text)


def place(path: str) -> Path | None:
    """A path of the page: from the root, or within the package."""
    candidates = (ROOT / path, PACKAGE / path.removeprefix("tde_replication/"))
    return next((one for one in candidates if one.exists()), None)


def steps() -> Iterator[list[str]]:
    """The cells of each step of a walk-through."""
    for line in PAGE.splitlines():
        if re.match(r"\| \d+ \|", line):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@cache
def program() -> str:
    """All of the package and its tests but this file, which names what is not there."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return "\n".join(file.read_text() for file in files if file != Path(__file__))


def word(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(name)}\b")


@pytest.mark.parametrize("path", sorted({one for line in PAGE.splitlines() for one in quoted(line) if is_path(one)}))
def test_every_path_is_there(path: str) -> None:
    assert place(path), path


@pytest.mark.parametrize("step", list(steps()), ids=lambda step: " ".join(step[:2])[:60])
def test_every_name_is_in_the_files_of_its_step(step: list[str]) -> None:
    files = [found for one in quoted(step[FILE_COLUMN]) if is_path(one) and (found := place(one)) and found.is_file()]
    text = "\n".join(file.read_text() for file in files)
    for name in filter(is_name, quoted(step[FILE_COLUMN])):
        assert all(word(part).search(text) for part in name.split(".")), f"{name} in {', '.join(map(str, files))}"
    for name in filter(is_name, quoted(step[TEXT_COLUMN])):
        assert all(word(part).search(program()) for part in name.split(".")), name


def test_there_are_three_walk_throughs() -> None:
    assert [number for number, *_ in steps()].count("1") == 3  # noqa: PLR2004 - a setting, a resource, a kind of host
