"""Asks for the status of a cluster under test as a person does."""

import subprocess
import sys

from tests.engine.cluster import Cluster
from tests.engine.workspace import Output

WELL, DEGRADED, BROKEN, UNKNOWN = 0, 1, 2, 3
WORDS = {WELL: "WELL", DEGRADED: "DEGRADED", BROKEN: "BROKEN", UNKNOWN: "CANNOT TELL"}


def status(cluster: Cluster, *arguments: str) -> Output:
    return asked(cluster, "status", *arguments)


def asked(cluster: Cluster, module: str, *arguments: str) -> Output:
    """What a program of the package says of the cluster's stack."""
    done = subprocess.run(
        [sys.executable, "-m", f"tde_replication.{module}", "--stack", cluster.workspace.stack, *arguments],
        cwd=cluster.workspace.directory,
        env=cluster.workspace.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Output(done.returncode, done.stdout + done.stderr)


def report(cluster: Cluster, *options: str) -> str:
    """The HTML page."""
    file = cluster.base / "report.html"
    command = [sys.executable, "-m", "tde_replication.report", "--stack", cluster.workspace.stack, *options, str(file)]
    workspace = cluster.workspace
    done = subprocess.run(
        command, cwd=workspace.directory, env=workspace.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return file.read_text()


def expect(cluster: Cluster, code: int, *words: str) -> str:
    """It says so in its first line, with its exit status, and in these words."""
    done = status(cluster)
    assert (done.code, WORDS[code] in done.text.splitlines()[0]) == (code, True), done.text
    for word in words:
        assert word in done.text, done.text
    return done.text
