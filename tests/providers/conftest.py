"""A primary that the tests of one module share, and the means to make more."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.double.build import build
from tests.openbao import OpenBao, openbao
from tests.providers.encrypted import KeyStore
from tests.providers.servers import Node, Servers, ground, plain_programs

__all__ = ["openbao"]


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    made = ground()
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def programs(root: Path) -> Path:
    return plain_programs(root / "postgresql")


@pytest.fixture(scope="session")
def programs_with_pg_tde(root: Path, programs: Path) -> Path:
    return build(programs / "pg_config", root / "double")


@pytest.fixture(scope="session")
def servers(root: Path, programs: Path) -> Iterator[Servers]:
    made = Servers(root, programs)
    yield made
    made.end()


@pytest.fixture(scope="session")
def primary(servers: Servers) -> Node:
    """Running, and logging all that can be logged. Tests clean up what they make in it."""
    return servers.primary(
        log_statement="all",
        log_min_duration_statement="0",
        log_error_verbosity="verbose",
        log_parameter_max_length_on_error="-1",
        debug_print_parse="on",
    )


@pytest.fixture(scope="session")
def store(openbao: OpenBao) -> KeyStore:
    return KeyStore(openbao)
