"""The chosen engine and its language host, whichever they are, with trivial programs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bootstrap.engine import LANGUAGE_HOST
from bootstrap.project import HERE, is_script
from tests.official import end_seconds, has_official_host

PROVIDER = """
import os, pathlib, time
from pulumi import dynamic

class Provider(dynamic.ResourceProvider):
    serialize_as_secret_always = False
    def create(self, props):
        pathlib.Path("creating").touch()
        time.sleep(props["seconds"])
        return dynamic.CreateResult("1", {**props, "python": os.path.realpath(os.sys.prefix)})

class Sleeper(dynamic.Resource, module="trial", name="Sleeper"):
    def __init__(self, name, seconds):
        super().__init__(Provider(), name, {"seconds": seconds, "python": None})
"""


@dataclass
class Program:
    directory: Path
    environ: dict[str, str]

    def write(self, **modules: str) -> None:
        for name, text in modules.items():
            (self.directory / f"{name}.py").write_text(text)

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["pulumi", *arguments, "--stack", "trial"]
        return subprocess.run(
            command, cwd=self.directory, env=self.environ, capture_output=True, text=True, check=False, timeout=300
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it where Ctrl-C reaches it alone, as a shell does."""
        command = ["pulumi", *arguments, "--stack", "trial"]
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> list[str]:
        """Whatever still works in this program's directory."""
        return [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cwd", "cmdline"])
            if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(self.directory)
        ]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    if not shutil.which("pulumi"):
        pytest.fail("no pulumi on PATH: run the tests by `make test`, or source env.sh first")
    directory = tmp_path / "a program"
    (directory / "state").mkdir(parents=True)
    (directory / "Pulumi.yaml").write_text(
        f"name: trial\nruntime: {{name: python, options: {{virtualenv: '{HERE.venv}'}}}}\n"
    )
    environ = {**os.environ, "PULUMI_BACKEND_URL": f"file://{directory}/state", "PULUMI_CONFIG_PASSPHRASE": ""}
    made = Program(directory, environ)
    made.write(__main__="")
    done = made.pulumi("stack", "init")
    assert done.returncode == 0, done.stderr
    yield made
    assert eventually(lambda: not made.processes()), made.processes()


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_dynamic_resource_runs_on_the_projects_interpreter_without_a_warning(program: Program) -> None:
    program.write(
        provider=PROVIDER,
        __main__="import os, sys, pulumi, provider\n"
        "pulumi.export('program', os.path.realpath(sys.prefix))\n"
        "pulumi.export('provider', provider.Sleeper('one', 0).python)\n",
    )
    done = program.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout
    assert "warning" not in (done.stdout + done.stderr).lower()
    assert "stand-in" not in done.stdout + done.stderr
    for output in ("program", "provider"):
        assert program.pulumi("stack", "output", output).stdout.strip() == str(HERE.venv.resolve())


RAISE = "import pulumi\ndef fail(*_): raise pulumi.RunError('two mistakes:\\n  one')\n"
UNTOLD = "an unhandled error occurred: program exited with non-zero exit code:"
"""What the engine says more, unless the program has told what is wrong."""
IN_AN_APPLY = "pulumi.export('x', pulumi.Output.from_input(1).apply({}))"


@pytest.mark.parametrize("call", ["fail()", IN_AN_APPLY.format("fail")])
def test_a_run_error_is_its_message(program: Program, call: str) -> None:
    program.write(__main__=RAISE + call)
    done = program.pulumi("preview")
    assert done.returncode != 0
    diagnostics = done.stdout.partition("Diagnostics:")[2]
    assert "error: two mistakes:\n      one\n" in diagnostics
    assert diagnostics.count("two mistakes") == 1
    assert "Traceback" not in done.stdout
    assert f"error: {UNTOLD} 1" in diagnostics


@pytest.mark.parametrize("call", ["helper.fail()", IN_AN_APPLY.format("helper.fail")])
def test_another_exception_is_a_traceback_of_the_program_alone(program: Program, call: str) -> None:
    program.write(__main__=f"import pulumi, helper\n{call}", helper="def fail(*_): raise ValueError('no such thing')")
    done = program.pulumi("preview")
    assert done.returncode != 0
    assert "Program failed with an unhandled exception:" in done.stdout
    assert "helper.py" in done.stdout
    assert "ValueError: no such thing" in done.stdout
    assert "language_host.py" not in done.stdout
    assert "runpy" not in done.stdout
    assert UNTOLD not in done.stdout


def test_the_language_host_is_no_part_of_the_project_it_lies_in(program: Program) -> None:
    engine = Path(shutil.which("pulumi") or "").resolve()
    if not is_script(engine.parent / LANGUAGE_HOST):
        pytest.skip("the official language host is no stand-in")
    root = program.directory
    shutil.copytree(HERE.root / "offline", root / "offline")
    package = Path("components", "tde_replication")
    (root / package).mkdir(parents=True)
    shutil.copy(HERE.root / package / "engine_watch.py", root / package)
    (root / ".venv").symlink_to(HERE.venv)
    own = root / ".local" / "engine" / "bin"
    own.mkdir(parents=True)
    for file in engine.parent.iterdir():
        shutil.copy(file, own)
    program.environ["PATH"] = f"{own}:{program.environ['PATH']}"
    call = IN_AN_APPLY.format("helper.fail")
    program.write(__main__=f"import pulumi, helper\n{call}", helper="def fail(*_): raise ValueError('no such thing')")
    said = program.pulumi("preview").stdout
    assert "ValueError: no such thing" in said
    assert "language_host.py" not in said


def test_a_program_that_exits_fails(program: Program) -> None:
    for status, code, words in (("3", 3, ""), ("'in words'", 1, "in words")):
        program.write(__main__=f"import sys; sys.exit({status})")
        done = program.pulumi("preview")
        assert done.returncode != 0
        assert f"error: {UNTOLD} {code}" in done.stdout
        assert words in done.stdout
    for status in ("", "0"):
        program.write(__main__=f"import sys; sys.exit({status})")
        assert program.pulumi("preview").returncode == 0


def test_a_program_that_has_told_what_is_wrong_gets_no_second_error(program: Program) -> None:
    """By the exit status that Pulumi's own host is silent for."""
    program.write(__main__="import sys, pulumi\npulumi.log.error('one mistake')\nsys.exit(32)")
    done = program.pulumi("preview")
    assert done.returncode != 0
    assert set(re.findall(r"error: (.*)", done.stdout + done.stderr)) == {"one mistake"}


def test_the_update_after_a_preview_imports_modules_anew(program: Program) -> None:
    """What a module makes when it is imported must be made in both."""
    part = "import provider\nprovider.Sleeper('one', 0)"
    program.write(__main__="import part", provider=PROVIDER, part=part)
    done = program.pulumi("up", "--yes")
    assert done.returncode == 0, done.stdout
    assert "2 created" in done.stdout


def test_ctrl_c_ends_program_and_engine(program: Program) -> None:
    program.write(__main__="import pathlib, time\npathlib.Path('running').touch()\ntime.sleep(60)")
    process = program.start("preview")
    assert eventually((program.directory / "running").exists)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # the second one means now
    said, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    if not has_official_host():  # which at times shows where it has interrupted the program
        assert "Traceback" not in said


WAITER = """
import pathlib, sys
sys.path.append({root!r})
from pulumi import dynamic
from tde_replication import waiting

class Provider(dynamic.ResourceProvider):
    serialize_as_secret_always = False
    def create(self, props):
        pathlib.Path("creating").touch()
        waiting.until(lambda: False, seconds=120)
        return dynamic.CreateResult("1", props)

class Waiter(dynamic.Resource, module="trial", name="Waiter"):
    def __init__(self, name):
        super().__init__(Provider(), name, {{}})
"""


def test_ctrl_c_once_ends_a_wait(program: Program) -> None:
    """After a grace in which what is waited for may still come."""
    if not is_script(Path(shutil.which("pulumi") or "").resolve().parent / LANGUAGE_HOST):
        pytest.skip("Pulumi's own launcher tells no provider of Ctrl-C: only an engine of the project's own is TESTED")
    program.write(provider=WAITER.format(root=str(HERE.root)), __main__="import provider\nprovider.Waiter('one')\n")
    process = program.start("up", "--yes", "--skip-preview")
    assert eventually((program.directory / "creating").exists, 40)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "interrupted while waiting: the next run goes on from here" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_language_host_ends_quietly_when_told_to(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        host = subprocess.Popen(
            [HERE.python, HERE.root / "offline" / "language_host.py", f"127.0.0.1:{engine.getsockname()[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with host:
            assert host.stdout
            assert int(host.stdout.readline()) > 0
            host.send_signal(number)
            said, _ = host.communicate(timeout=20)
    assert (host.returncode, said) == (0, "")


def test_a_killed_engine_leaves_no_language_host(program: Program) -> None:
    program.write(__main__="import pathlib, time\npathlib.Path('running').touch()\ntime.sleep(60)")
    process = program.start("preview")
    assert eventually((program.directory / "running").exists)
    process.kill()
    process.communicate()
    assert eventually(lambda: not program.processes(), end_seconds()), program.processes()


def test_a_killed_engine_leaves_no_provider_that_it_had_not_configured(program: Program) -> None:
    """It starts one, and is killed at once: whenever that is, nothing stays."""
    program.write(provider=PROVIDER, __main__="import provider\nprovider.Sleeper('one', 0)\n")
    for _ in range(5):
        process = program.start("up", "--yes", "--skip-preview")
        assert eventually(lambda: any("dynamic" in one or "provider_host" in one for one in program.processes()), 40)
        process.kill()
        process.communicate()
        program.pulumi("cancel", "--yes")
    assert eventually(lambda: not any("dynamic" in one for one in program.processes())), program.processes()
    assert eventually(lambda: not program.processes(), end_seconds()), program.processes()
