"""A throw-away OpenBao for tests: `from tests.openbao import openbao` gives the fixture.

It is the embedded default's, made by the same code in a directory of its own: TLS, raft, and a seal that opens itself.
"""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import hvac
import pytest

from bootstrap.vault import Vault
from bootstrap.vault_process import server_in
from tde_replication.hosts.account import service_account


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

    def suspend(self) -> None:
        """Have it answer nothing, without an error, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @contextmanager
    def slow(self, share: float = 0.1) -> Iterator[None]:
        """Have it work for that share of the time only, as under a load that is too much for it."""
        done = threading.Event()

        def brake() -> None:
            while not done.wait(share):
                self.suspend()
                done.wait(1 - share)
                self.resume()

        thread = threading.Thread(target=brake)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _signal(self, number: signal.Signals) -> None:
        process = server_in(self.vault.directory)
        assert process is not None
        try:
            signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)

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


Kind = TypeVar("Kind", bound=OpenBao)


@contextmanager
def thrown_away(kind: Callable[[Path], Kind]) -> Iterator[Kind]:
    """A running one in a directory of its own; both are gone afterwards."""
    root = private_directory()
    server = kind(root)
    try:
        server.start()
        yield server
    finally:
        server.vault.remove()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    with thrown_away(OpenBao) as server:
        yield server
