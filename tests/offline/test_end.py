"""What the engine starts ends with it: also what it had not called yet, and what it started just before it went."""

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tde_replication.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PULUMIS_OWN = "-m pulumi.dynamic"
"""As the official launcher starts it: what is added to the virtual environment watches there."""
PROGRAMS = ["offline/provider_host.py", "offline/language_host.py", "offline/plugins/vault.py", PULUMIS_OWN]


def started(program: str, port: int, directory: Path) -> "subprocess.Popen[str]":
    run = program.split() if program == PULUMIS_OWN else [str(ROOT / program)]
    command = [sys.executable, "-u", *run, f"127.0.0.1:{port}"]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_ends_with_an_engine_that_never_called_it(program: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        process = started(program, engine.getsockname()[1], tmp_path)
        try:
            assert process.stdout
            assert int(process.stdout.readline()) > 0  # its port: it serves
            engine.settimeout(20)
            connection, _ = engine.accept()
            assert process.poll() is None
            connection.close()
            engine.close()
            process.communicate(timeout=20)
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_ends_where_the_engine_has_gone_before_it_came_up(program: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    process = started(program, port, tmp_path)
    try:
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()


def test_a_provider_finds_the_programs_own_modules(tmp_path: Path) -> None:
    """As with `python -m`: those of the directory that the engine starts it in come first."""
    (tmp_path / "pulumi" / "runtime" / "proto").mkdir(parents=True)
    register = "def add_ResourceProviderServicer_to_server(*_): ..."
    (tmp_path / "pulumi" / "runtime" / "proto" / "provider_pb2_grpc.py").write_text(register)
    for package in ("pulumi", "pulumi/runtime", "pulumi/runtime/proto"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "pulumi" / "dynamic.py").write_text("import sys; print(__name__, sys.argv[1:])")
    with socket.create_server(("127.0.0.1", 0)) as engine:
        port = engine.getsockname()[1]
        said, errors = started("offline/provider_host.py", port, tmp_path).communicate(timeout=20)
    assert said == f"__main__ ['127.0.0.1:{port}']\n", errors


def test_it_keeps_no_other_processes(tmp_path: Path) -> None:
    """Its launcher becomes it, so that the engine's signals reach it."""
    launcher = ROOT / ".local" / "engine" / "bin" / "pulumi-resource-pulumi-python"
    if not launcher.exists():
        pytest.skip("the engine on this machine is not the project's own: its provider host was NOT tested")
    with socket.create_server(("127.0.0.1", 0)) as engine:
        process = subprocess.Popen(
            [launcher, f"127.0.0.1:{engine.getsockname()[1]}"], cwd=tmp_path, stdout=subprocess.PIPE
        )
        try:
            watched = psutil.Process(process.pid)
            assert until(lambda: any("provider_host.py" in word for word in watched.cmdline()), seconds=20)
            assert watched.children() == []
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("program", "imports"), [("import tde_replication", ["done"]), ("import pulumi", [])])
def test_a_provider_of_this_package_is_imported_before_it_is_called(
    program: str, imports: list[str], tmp_path: Path
) -> None:
    """The engine starts one plugin after the other: what the first one can do meanwhile costs no time."""
    package = tmp_path / "tde_replication" / "postgres"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package / "resources.py").write_text("import pathlib; pathlib.Path('imported').write_text('done')")
    (tmp_path / "__main__.py").write_text(program)
    with socket.create_server(("127.0.0.1", 0)) as engine:
        process = started("offline/provider_host.py", engine.getsockname()[1], tmp_path)
        try:
            assert process.stdout
            assert int(process.stdout.readline()) > 0
            until(lambda: any(file.read_text() for file in tmp_path.glob("imported")), seconds=20 if imports else 0.5)
            assert [file.read_text() for file in tmp_path.glob("imported")] == imports
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()
