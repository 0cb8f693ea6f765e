"""Nothing stays of a test run, however it ends: not even what has detached itself and what does not mind being told to end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from bootstrap.project import HERE
from tde_replication.waiting import until
from tests.guard import MARK

DETACHED = "exec sleep 600"
STUBBORN = "trap '' TERM INT; while :; do sleep 1; done"
TEST = """
import os, pathlib, subprocess, time

def test_with_a_server():
    place = pathlib.Path(__file__)
    place.with_suffix(".run").write_text(str(os.getpid()))
    server = place.with_suffix(".server")
    shell = f"echo $$ >'{server}.new'; mv '{server}.new' '{server}'; %s"
    subprocess.run(["setsid", "--fork", "env", "-i", "PATH=/usr/bin:/bin", "sh", "-c", shell], check=True)
    if %r:
        time.sleep(600)
"""


@contextmanager
def running(
    place: Path, *options: str, server: str = DETACHED, waits: bool = True
) -> Iterator["subprocess.Popen[str]"]:
    """A run of two tests that start a server each, with the plugins of the real ones."""
    for n in range(2):
        (place / f"test_{n}.py").write_text(TEST % (server, waits))
    command = [
        "env",
        "--default-signal=INT",  # a job in the background of a script ignores it, and all that it starts
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        *options,
        str(place),
    ]
    environ = {name: value for name, value in os.environ.items() if name != MARK and not name.startswith("PYTEST")}
    path = os.pathsep.join([str(HERE.root), str(HERE.root / "components")])
    with subprocess.Popen(
        [*command, "-c", str(HERE.root / "pyproject.toml"), "--rootdir", str(place)],
        cwd=place,
        env={**environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        try:
            yield run
        finally:
            for left in psutil.process_iter(["cwd"]):  # not all that this process has started: that is dockerd too
                if left.info["cwd"] == str(place):
                    with suppress(psutil.Error):
                        left.kill()


def read(place: Path) -> list[psutil.Process]:
    """Those that tests have told of and that are there."""
    pids = [int(file.read_text()) for kind in ("run", "server") for file in place.glob(f"*.{kind}")]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def nothing_stays(place: Path, run: "subprocess.Popen[str]", number: signal.Signals, victim: int, tests: int) -> None:
    """After a signal to one of the two guards (0, 1) or to the run itself (2), of `tests` that run at once."""
    assert until(lambda: len(list(place.glob("*.server"))) == tests, seconds=60)
    told, chain = read(place), [psutil.Process(run.pid)]
    while len(chain) < 3:
        chain += [one for one in chain[-1].children() if "tests.conftest" in one.cmdline()]
    os.kill(chain[victim].pid, number)
    output, _ = run.communicate(timeout=120)
    assert run.returncode != 0, output
    assert psutil.wait_procs([*chain, *told], timeout=30)[1] == []


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_after_a_signal(tmp_path: Path, number: signal.Signals, victim: int) -> None:
    with running(tmp_path, "-n", "0") as run:
        nothing_stays(tmp_path, run, number, victim, 1)


@pytest.mark.parametrize(("number", "victim"), [(signal.SIGINT, 2), (signal.SIGKILL, 0), (signal.SIGKILL, 2)])
def test_nothing_stays_of_workers_either(tmp_path: Path, number: signal.Signals, victim: int) -> None:
    with running(tmp_path, "-n", "2") as run:
        nothing_stays(tmp_path, run, number, victim, 2)


def test_what_does_not_mind_being_told_to_end_does_not_stay(tmp_path: Path) -> None:
    with running(tmp_path, server=STUBBORN) as run:
        nothing_stays(tmp_path, run, signal.SIGKILL, 2, 1)


def test_what_is_not_of_the_run_stays(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            with running(tmp_path, waits=False) as run:
                run.communicate(timeout=120)
            assert other.poll() is None
        finally:
            other.kill()


def test_nothing_stays_after_a_run_to_its_end_and_its_status_is_kept(tmp_path: Path) -> None:
    with running(tmp_path, waits=False) as run:
        output, _ = run.communicate(timeout=120)
        assert (run.returncode, "2 passed" in output) == (0, True), output
        assert len(list(tmp_path.glob("*.server"))) == 2
        assert read(tmp_path) == []
