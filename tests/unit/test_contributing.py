"""The walk-throughs of CONTRIBUTING.md lead to files and names that are there."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.pages import PACKAGE, ROOT, is_name, is_path, place, quoted

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLE = re.compile(r"database_comment|DatabaseComment|\blab\b|\bLab\b|walSenderTimeout|wal_sender_timeout")
"""What the walk-throughs make."""
FILE_COLUMN, TEXT_COLUMN = 1, 2


def named(text: str) -> list[str]:
    return [one for one in quoted(text) if not EXAMPLE.search(one)]


STEPS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| \d+ \|", line)
]
"""The cells of each step of a walk-through."""


@cache
def program() -> str:
    """All of the package and its tests but this file, which names what is not there."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return "\n".join(file.read_text() for file in files if file != Path(__file__))


def word(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(name)}\b")


@pytest.mark.parametrize("path", sorted({one for one in named(PAGE) if is_path(one)}))
def test_every_path_is_there(path: str) -> None:
    assert place(path), path


@pytest.mark.parametrize("step", STEPS, ids=lambda step: " ".join(step[:2])[:60])
def test_every_name_is_in_the_files_of_its_step(step: list[str]) -> None:
    files = [found for one in named(step[FILE_COLUMN]) if is_path(one) and (found := place(one)) and found.is_file()]
    text = "\n".join(file.read_text() for file in files)
    for name in filter(is_name, named(step[FILE_COLUMN])):
        assert all(word(part).search(text) for part in name.split(".")), f"{name} in {', '.join(map(str, files))}"
    for name in filter(is_name, named(step[TEXT_COLUMN])):
        assert all(word(part).search(program()) for part in name.split(".")), name


def test_there_are_three_walk_throughs() -> None:
    assert [number for number, *_ in STEPS].count("1") == 3
