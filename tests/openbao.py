"""A throw-away OpenBao for tests: `from tests.openbao import openbao` gives the fixture.

It is the embedded default's, made by the same code in a directory of its own: TLS, raft, and a seal that opens itself.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import pytest

from bootstrap.vault import Vault
from components.hosts.account import service_account


class OpenBao:
    def __init__(self, root: Path) -> None:
        self.vault = Vault(root, service_account())

    @property
    def address(self) -> str:
        return self.vault.address

    @property
    def ca(self) -> Path:
        return self.vault.ca

    @property
    def token(self) -> str:
        return self.vault.token

    @property
    def environment(self) -> dict[str, str]:
        return {"VAULT_ADDR": self.address, "VAULT_CACERT": str(self.ca), "VAULT_TOKEN": self.token}

    def client(self, token: str | None = None) -> Any:
        """Give an hvac.Client; Any, since its stubs leave half of it untyped."""
        return hvac.Client(url=self.address, token=token or self.token, verify=str(self.ca))

    def start(self) -> None:
        """Return when it is open and active; also after a kill."""
        self.vault.start()

    def stop(self) -> None:
        self.vault.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        self.vault.kill()

    def seal(self) -> None:
        self.client().sys.seal()

    def unseal(self) -> None:
        """Open it again: its seal does that at a start."""
        self.kill()
        self.start()


def private_directory() -> Path:
    """Make a directory that the servers' account can enter, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="tde-replication-tests-"))
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    root = private_directory()
    server = OpenBao(root)
    try:
        server.start()
        yield server
    finally:
        server.vault.remove()
        shutil.rmtree(root, ignore_errors=True)
