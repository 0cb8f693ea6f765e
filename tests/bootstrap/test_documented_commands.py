"""Every command that a page shows: run in a clean clone where that takes seconds, else its arguments are checked."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from bootstrap import __main__ as bootstrap
from bootstrap.project import HERE
from tde_replication import reap
from tde_replication.needed_keys import __main__ as needed_keys
from tde_replication.report import __main__ as report
from tde_replication.restore_drill import __main__ as restore_drill
from tde_replication.review import __main__ as review
from tde_replication.status import __main__ as status
from tests.bootstrap import clone as clones
from tests.bootstrap.clone import Clone
from tests.bootstrap.test_from_nothing import declare_ports

PAGES = [*HERE.root.glob("*.md"), *sorted((HERE.root / "docs").rglob("*.md"))]
PROGRAMS = ("make", "pulumi", "pip", "python", "python3", "tool", "git", "psql", "sh", "bash")
FILES = {
    "pip install ./components": "components/pyproject.toml",  # done in tests/engine/test_package.py
    "pip install pre-commit && pre-commit install": ".pre-commit-config.yaml",
}
"""What installs something, and the file that it needs."""
NAMED = {"pip list", "python -m pulumi.dynamic", "pulumi", "make", "sh", "tool", "psql"}
"""Not for a reader to type."""
TAKES: dict[str, Callable[[list[str]], object]] = {
    "benchmarks": benchmarks.options,
    "tde_replication.needed_keys": needed_keys.options,
    "tde_replication.reap": reap.options,
    "tde_replication.report": report.options,
    "tde_replication.restore_drill": restore_drill.options,
    "tde_replication.review": review.options,
}
"""By module, what reads its arguments."""


def blocks(page: Path) -> list[str]:
    """The lines of its shell examples; one that goes on in the next is one."""
    text = page.read_text()
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}((?:make|python|\. \./env).*)$", text, re.MULTILINE)
    lines = "\n".join([*fenced, *indented]).replace("\\\n", " ").splitlines()
    return [re.split(r"\s{2,}(?=#|[a-z])|\s+# ", line)[0].strip() for line in lines if line.strip()]


def shown(page: Path) -> Iterator[str]:
    """Commands of a page, in its examples and in its sentences."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in [*blocks(page), *(" ".join(quoted.split()) for quoted in re.findall(r"`([^`]+)`", text))]:
        for part in re.split(r"; | && (?=\w+ )", line) if line not in FILES else [line]:
            command = re.sub(r"^(\w+=\S+ )+", "", part)
            if command.split() and command.split()[0] in PROGRAMS:
                yield command


SHOWN = sorted({command for page in PAGES for command in shown(page)} - NAMED)


def test_the_pages_show_commands() -> None:
    assert {"make up", "pulumi preview --diff", "python -m benchmarks --only b,c"} <= set(SHOWN)


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith("make")])
def test_a_target_exists(command: str) -> None:
    words = shlex.split(command.replace("…", "local"))
    done = subprocess.run(
        [words[0], "--dry-run", *words[1:]], cwd=HERE.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith("pulumi")])
def test_pulumi_knows_the_command_and_its_options(command: str) -> None:
    given = shlex.split(command)
    given += ["value"] if given[-1].startswith("--") else []  # a page may name an option without its value
    done = subprocess.run([*given, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words = re.match(r"(?:[a-z-]+(?= |$) ?)+", command.split(" -", maxsplit=1)[0])[0].split()  # type: ignore[index]
    groups = re.findall(r"^ +(pulumi.*) \[command\]$", done.stdout, re.MULTILINE)
    assert not groups or words == groups[0].split(), f"there is no {words[-1]} in {groups[0]}"


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith("tool ")])
def test_a_tool_has_what_it_is_given(command: str) -> None:
    module, *rest = shlex.split(command.removeprefix("tool "))
    if module == "pytest" and rest[-1] == "lab":  # the example of a kind of host that does not exist
        rest = rest[:-2]
    if module == "pytest":
        run(module, "--collect-only", "-q", *rest)
    elif ">" in rest:
        assert run(module) == (HERE.root / rest[-1]).read_text()
    elif module == "tests.report.pictures":
        assert (
            HERE.root / "tests" / "report" / "pictures.py"
        ).exists()  # it writes pictures, each machine with its own fonts
    else:
        pytest.fail(f"nothing checks `{command}`")


def run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=HERE.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [command for command in SHOWN if command.startswith(("python", "pip"))])
def test_a_module_takes_its_arguments(command: str) -> None:
    if command in FILES:
        assert (HERE.root / FILES[command]).exists()
        return
    _, option, module, *rest = shlex.split(command)
    assert option == "-m"
    if module in TAKES:
        TAKES[module](rest)
    elif module == "tde_replication.status":
        status.options(rest[: rest.index(">")] if ">" in rest else rest)
    elif module == "bootstrap" and "…" not in rest:
        assert not rest or rest[0] in bootstrap.COMMANDS  # without one, it makes all that is needed
    elif module == "bootstrap":
        place = rest.index("…")
        done = subprocess.run(
            [sys.executable, "-m", module, *rest[:place], "nothing", *rest[place + 1 :]],
            cwd=HERE.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "there is no stacks/Pulumi.nothing.yaml" in done.stderr
    else:
        pytest.fail(f"nothing checks `{command}`")


@pytest.fixture
def clone() -> Iterator[Clone]:
    with clones.clone() as made:
        yield made


def test_the_readme_from_its_first_to_its_last_command(clone: Clone) -> None:
    """In a shell without a terminal, so that nobody is asked; what destroys comes last."""
    first, *lines = blocks(HERE.root / "README.md")
    assert first.startswith("git clone")
    lines.remove("pulumi destroy")
    declare_ports(clone)
    clone.environ["PULUMI_SKIP_CONFIRMATIONS"] = "true"
    switchover = max(number for number, line in enumerate(lines) if line == "make preview")
    edit = "sed -i 's/primary: db1/primary: db2/' stacks/Pulumi.local.yaml"
    lines[switchover:switchover] = ["echo REPAIR", "pulumi up", edit, "echo SWITCHOVER"]
    script = "\n".join(["set -e", *lines, "pulumi destroy"])
    done = clone.run("bash", "-c", script)
    assert done.returncode == 0, done.stdout
    before, _, rest = done.stdout.partition("REPAIR")
    after, _, switched = rest.partition("SWITCHOVER")
    assert re.search(r"tde_db2 +\| streaming", before)
    assert re.search(r"connectionLimit *: 0 => -1", before)
    assert re.search(r"passwordMatches *: false => true", before)
    assert "1 updated" in after
    assert "db1  primary → standby of db2, without a new clone; writes are refused for about 1 s" in switched
    assert re.search(r"^local: interrupts writes for about 1 s; loses nothing$", switched, re.MULTILINE)
    assert re.search(r"db1 +standby +127\.0\.0\.1:\d+ +slot tde_db1", switched)
    assert "deleted" in switched


def test_what_performance_measures_on_a_machine_without_the_tools_of_tests(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "pytest.py").write_text("raise ModuleNotFoundError('No module named pytest', name='pytest')")
    clone.environ["PYTHONPATH"] = str(tmp_path)
    shell, measure, *_ = [
        part
        for line in blocks(HERE.root / "docs" / "performance.md")
        for part in line.split("; ")
        if "make" not in line
    ]
    done = clone.run("bash", "-c", f"{shell} && {measure} --runs 1")
    assert done.returncode == 0, done.stdout
    for row in ("(b) up with nothing to do, s", "(c) drift check, s"):
        assert re.search(rf"^{re.escape(row)} +floor ", done.stdout, re.MULTILINE), done.stdout
    done = clone.run("bash", "-c", f"{shell} && python -m benchmarks --only g")
    assert re.search(r"^error: rows g, [a-z, ]+ need pytest: `make bench` has it$", done.stdout, re.MULTILINE), (
        done.stdout
    )
