"""Throw-away PostgreSQL servers and token files for the contract tests: sockets only, below one directory, as the service
account."""

import os
import re
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import hvac.exceptions
import psycopg
from psycopg.rows import TupleRow

from tde_replication.hosts.account import Account
from tests.openbao import OpenBao

SETTINGS = """
listen_addresses = ''
unix_socket_permissions = 0777
shared_preload_libraries = 'pg_tde'
fsync = off
autovacuum = off
wal_retrieve_retry_interval = 100ms
log_line_prefix = ''
shared_buffers = 8MB
max_connections = 20
min_wal_size = 4MB
max_wal_size = 64MB
"""
MOUNT = "tde"
CIPHERS = ("aes_128", "aes_256")
KEY_FILE, FILE_KEY = struct.Struct("=iiIiqq256s32sqIIQ"), struct.Struct("=III")
"""KeyFile and FileKey in src/format.h."""
REAL = os.environ.get("PGTDE_PG_CONFIG")  # a server that has the real pg_tde


@dataclass(frozen=True)
class Failure:
    """An error as the server told it."""

    code: str | None
    message: str | None
    detail: str | None
    hint: str | None


@dataclass
class Server:
    """A data directory, and the server in it. `name` stands for a port: there are only sockets."""

    programs: Path
    root: Path
    account: Account
    number: int

    @property
    def data(self) -> Path:
        return self.root / f"server-{self.number}"

    @property
    def log(self) -> str:
        return (self.root / f"server-{self.number}.log").read_text()

    @property
    def conninfo(self) -> str:
        return f"host={self.root} port={self.number} user=postgres dbname=postgres"

    def run(
        self, program: str, *arguments: str | Path, locked_memory: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        limits = [] if locked_memory is None else ["prlimit", f"--memlock={locked_memory}:{locked_memory}"]
        return subprocess.run(
            [*limits, self.programs / program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.root,
            user=self.account.uid if self.account.switches else None,
            group=self.account.gid if self.account.switches else None,
            extra_groups=[] if self.account.switches else None,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        )

    def succeed(self, program: str, *arguments: str | Path) -> str:
        result = self.run(program, *arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stderr

    def configure(self, **settings: str | int) -> Self:
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name.replace('__', '.')} = '{value}'\n" for name, value in settings.items())
        return self

    def launch(self, *, locked_memory: int | None = None) -> subprocess.CompletedProcess[str]:
        """Start, whatever comes of it."""
        log = self.root / f"server-{self.number}.log"
        log.unlink(missing_ok=True)
        return self.run(
            "pg_ctl", "-D", self.data, "-l", log, "-w", "-o", f"-k {self.root} -p {self.number}", "start",
            locked_memory=locked_memory,
        )  # fmt: skip

    def start(self) -> Self:
        result = self.launch()
        assert self.running(), f"{result.stdout}{result.stderr}{self.log}"
        return self

    def stop(self, mode: str = "fast") -> Self:
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")
        return self

    def restart(self) -> Self:
        return self.stop().start()

    def running(self) -> bool:
        return self.run("pg_ctl", "-D", self.data, "status").returncode == 0

    def connect(self, **parameters: str) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(self.conninfo, autocommit=True, **parameters)  # type: ignore[arg-type]

    def rows(self, query: str, parameters: Sequence[object] = (), **connection: str) -> list[TupleRow]:
        with self.connect(**connection) as session:
            cursor = session.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, parameters: Sequence[object] = (), **connection: str) -> Any:
        return self.rows(query, parameters, **connection)[0][0]

    def warnings(self, query: str, parameters: Sequence[object] = ()) -> list[str | None]:
        """The warnings of a call that succeeds."""
        told: list[str | None] = []
        with self.connect() as session:
            session.add_notice_handler(lambda notice: told.append(notice.message_primary))
            session.execute(query.encode(), parameters or None)
        return told

    def failure(self, query: str, parameters: Sequence[object] = (), **connection: str) -> Failure:
        try:
            self.rows(query, parameters, **connection)
        except psycopg.Error as error:
            told = error.diag
            return Failure(told.sqlstate, told.message_primary or str(error), told.message_detail, told.message_hint)
        raise AssertionError(f"succeeded: {query}")

    # What pg_tde.md calls by short names.
    def add(self, name: str, tokens: "Tokens", path: Path | str | None = None) -> None:
        self.rows(*self.add_call(name, tokens, path))

    def add_call(
        self, name: str, tokens: "Tokens", path: Path | str | None = None, *, verb: str = "add", **changed: str | None
    ) -> tuple[str, list[object]]:
        arguments = {
            "url": tokens.vault.address,
            "mount": MOUNT,
            "token": str(path or tokens.root),
            "ca": str(tokens.vault.ca),
            **changed,
        }
        return f"SELECT pg_tde_{verb}_global_key_provider_vault_v2(%s, %s, %s, %s, %s)", [name, *arguments.values()]

    def create_key(self, key: str, provider: str = "vault") -> None:
        self.rows("SELECT pg_tde_create_key_using_global_key_provider(%s, %s)", [key, provider])

    def set_key(self, what: str, key: str, provider: str = "vault") -> None:
        self.rows(f"SELECT pg_tde_set_{what}_using_global_key_provider(%s, %s)", [key, provider])

    def cipher(self, table: str) -> str:
        """What the file of a table in database postgres is said to be encrypted with on this server."""
        database, file = self.rows(
            "SELECT oid, pg_relation_filenode(%s) FROM pg_database WHERE datname = current_database()", [table]
        )[0]
        return dict(file_keys(self.data, f"{database}_keys"))[file]

    def info(self, what: str) -> tuple[Any, ...]:
        return self.rows(f"SELECT key_name, provider_name, provider_id FROM pg_tde_{what}_info()")[0]


class Tokens:
    """The Vault's tokens, in files that the servers' account reads."""

    def __init__(self, vault: OpenBao, directory: Path, account: Account) -> None:
        self.vault = vault
        self.directory = directory
        self.account = account
        self.client = vault.client()
        self.root = self.write("root", vault.token)
        self._numbers = iter(range(10_000))

    def write(self, name: str, content: str, mode: int = 0o600) -> Path:
        path = self.directory / f"token-{name}"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(content, newline="")
        if self.account.switches:
            os.chown(path, self.account.uid, self.account.gid)
        path.chmod(mode)
        return path

    def mount(self, path: str) -> None:
        """Enable a KV v2 engine, and wait while it still upgrades itself and answers 400."""
        self.client.sys.enable_secrets_engine("kv", path=path, options={"version": "2"})

        def empty() -> bool:
            try:
                self.client.secrets.kv.v2.list_secrets("", mount_point=path)
            except hvac.exceptions.InvalidPath:
                return True
            except hvac.exceptions.InvalidRequest:
                return False
            return True

        wait(empty)

    def secret(self, policy: str) -> str:
        """A new token with just this policy."""
        name = f"policy-{next(self._numbers)}"
        self.client.sys.create_or_update_policy(name, policy)
        made = self.client.auth.token.create(policies=[name], no_default_policy=True)
        return str(made["auth"]["client_token"])

    def key(self, name: str) -> dict[str, Any]:
        """A stored key: data and metadata."""
        made = self.client.secrets.kv.v2.read_secret_version(name, mount_point=MOUNT, raise_on_deleted_version=True)
        return dict(made["data"])


class Servers:
    """Makes servers from one data directory that has the extension, and ends what it made."""

    def __init__(self, programs: Path, root: Path, account: Account) -> None:
        self.programs = programs
        self.root = root
        self.account = account
        self.made: list[Server] = []
        self._template = self._server()
        self._template.succeed(
            "initdb",
            "-D",
            self._template.data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--wal-segsize=1",
        )
        with (self._template.data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        self._template.start()
        self._template.rows("CREATE EXTENSION pg_tde")
        self._template.stop()

    def _server(self) -> Server:
        server = Server(self.programs, self.root, self.account, len(self.made) + 1)
        self.made.append(server)
        return server

    def new(self) -> Server:
        """A stopped server with the extension in database postgres, and no provider."""
        server = self._server()
        subprocess.run(["/bin/cp", "-a", self._template.data, server.data], check=True)
        return server

    def standby(self, primary: Server, *, program: str = "pg_basebackup") -> Server:
        """A stopped standby of `primary`, with a slot of its own, by what pg_basebackup -R writes."""
        server = self._server()
        server.succeed(
            program, "-d", primary.conninfo, "-D", server.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
            "-C", "-S", f"standby_{server.number}",
        )  # fmt: skip
        return server

    def copy_keys(self, source: Server, target: Server) -> None:
        """Put the source's key files into the target's directory, as pg_tde_basebackup -E wants it (F3)."""
        target.data.mkdir(mode=0o700)
        if self.account.switches:
            os.chown(target.data, self.account.uid, self.account.gid)
        subprocess.run(["/bin/cp", "-a", source.data / "pg_tde", target.data], check=True)

    def bare(self) -> Server:
        """A server's place, with nothing in it."""
        return self._server()

    def end(self) -> None:
        for server in self.made:
            if (server.data / "postmaster.pid").exists():
                server.stop("immediate")


def file_keys(data: Path, name: str) -> list[tuple[int, str]]:
    """The file keys in a key file of the double ("wal_keys"): the relation's file (0: WAL), and the cipher."""
    content = (data / "pg_tde" / name).read_bytes()[KEY_FILE.size :]
    return [(file, CIPHERS[cipher]) for cipher, _, file in FILE_KEY.iter_unpack(content)]


def matches(text: str, pattern: str) -> bool:
    return re.search(pattern, text, re.MULTILINE) is not None


def wait(condition: Callable[[], object], patience: int = 200) -> None:
    """Until it holds, for `patience` twentieths of a second."""
    for _ in range(patience):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to hold")
