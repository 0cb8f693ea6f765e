"""The pytest plugin, by runs of pytest: nothing is left of one that is ended or killed, nothing is taken from one that lives."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import pytest

from tde_replication.hosts.local.machine import LocalHost
from tests.engine.cluster import base_directory
from tests.engine.workspace import eventually
from tests.openbao import OpenBao
from tests.removal import removed_under_its_server

PLUGIN = ("-p", "tde_replication.testing.plugin")
SMALL = {"encryption": "off", "servers": {"db1": {}}}


class Runs:
    """Runs of pytest, whose test clusters lie in a TMPDIR of their own."""

    def __init__(self, directory: Path, bao: OpenBao) -> None:
        self.base = base_directory()
        self.base.chmod(0o755)
        os.chown(self.base, os.geteuid(), os.getegid())
        self.directory = directory
        self.bao = bao
        self.environment = {**os.environ, **bao.environment, "TMPDIR": str(self.base), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment.pop("PYTEST_XDIST_WORKER", None)

    def start(self, *arguments: str, cluster: dict[str, Any], **environment: str) -> "subprocess.Popen[str]":
        settings = ("-o", f"tde_cluster={json.dumps(cluster)}", "-p", "no:cacheprovider")
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", *settings, *arguments],
            cwd=self.directory,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, cluster: dict[str, Any], **environment: str) -> str:
        with self.start(*arguments, cluster=cluster, **environment) as process:
            text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text
        return text

    @property
    def root(self) -> Path:
        return self.base / f"tde-tests-{os.geteuid()}"

    @property
    def clusters(self) -> list[Path]:
        return sorted(place for place in self.root.glob("t*") if place.is_dir())

    @property
    def left(self) -> list[str]:
        """Files, processes and mounts of test clusters."""
        files = [name for _, _, names in os.walk(self.root) for name in names] + list(map(str, self.clusters))
        processes = [
            str(process.cmdline())
            for process in psutil.process_iter()
            if process.is_running() and str(self.base) in " ".join(_command(process))
        ]
        mounts = [
            name for name in self.bao.client().sys.list_mounted_secrets_engines()["data"] if name.startswith("tde-t")
        ]
        return files + processes + mounts


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def runs(tmp_path: Path, openbao: OpenBao) -> Iterator[Runs]:
    made = Runs(tmp_path, openbao)
    yield made
    for data in made.root.glob("t*/servers/*/data"):
        if running := LocalHost().postmaster(PurePosixPath(data)):
            os.kill(running.pid, signal.SIGKILL)
    removed_under_its_server(made.base)


WAITING = """
import pathlib, signal, time

def test_waits(encrypted_cluster):
    pathlib.Path("ready").write_text(encrypted_cluster.name)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_ctrl_c_leaves_nothing(runs: Runs, workers: tuple[str, ...]) -> None:
    (runs.directory / "test_waiting.py").write_text(WAITING)
    with runs.start(*PLUGIN, *workers, cluster=SMALL) as process:
        eventually((runs.directory / "ready").exists, 120)
        assert len(runs.clusters) == 1
        os.killpg(process.pid, signal.SIGINT)
        text, _ = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in text
    eventually(lambda: runs.left == [], 60)


def test_a_run_that_is_killed_leaves_nothing(runs: Runs) -> None:
    (runs.directory / "test_waiting.py").write_text(WAITING)
    with runs.start(*PLUGIN, "-n", "1", cluster=SMALL) as killed:
        eventually((runs.directory / "ready").exists, 120)
        os.killpg(killed.pid, signal.SIGKILL)
    eventually(lambda: runs.left == [], 60)


def test_the_next_run_reaps_what_has_lost_its_keeper_too_and_nothing_that_lives(runs: Runs) -> None:
    (runs.directory / "test_waiting.py").write_text(WAITING)
    with runs.start(*PLUGIN, cluster=SMALL) as early:
        eventually(lambda: any(runs.root.glob("t*/state/.pulumi/locks/**/*.json")), 120)
        for process in psutil.process_iter():
            command = _command(process)
            if "tde_replication.testing.keeper" in command and str(runs.base) in " ".join(command):
                process.kill()
        os.killpg(early.pid, signal.SIGKILL)  # in the middle of its `up`
    [half] = runs.clusters
    with runs.start(*PLUGIN, cluster=SMALL) as living:
        eventually((runs.directory / "ready").exists, 120)
        assert half not in runs.clusters
        [lives] = runs.clusters
        (runs.directory / "test_short.py").write_text("def test_short(encrypted_cluster):\n    pass\n")
        assert "1 passed" in runs.run(*PLUGIN, "test_short.py", cluster=SMALL)
        assert runs.clusters == [lives]
        (runs.directory / "go").touch()
        text, _ = living.communicate(timeout=120)
        assert "1 passed" in text
    assert runs.left == []
