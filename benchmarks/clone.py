"""(f) and (i): clones of a database through the stack against pg_basebackup alone, from the same primary."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.ours import Ours
from benchmarks.place import BenchmarkError
from tde_replication.hosts.account import service_account
from tde_replication.hosts.installation import Installation
from tde_replication.hosts.local.machine import LocalHost

MIB = 1024**2
PAGE = 8192
TYPE = "DataDirectory"


def refuse_full_disk(root: Path, size: int, clones: int) -> None:
    """`size` of the database in MiB: beside it lie its WAL, the stack's clones and those of before, and the raw ones."""
    free, needed = shutil.disk_usage(root).free // MIB, size * (3 * clones + 2)
    if free < needed:
        raise BenchmarkError(f"clones need {needed} MiB below {root}: {free} MiB are free. TMPDIR names another place")


class Database:
    """What is cloned: `size` MiB on the primary of a stack that has no standby yet."""

    def __init__(self, ours: Ours, installation: Installation, size: int) -> None:
        self._ours = ours
        self._installation = installation
        with psycopg.connect(_superuser(ours), autocommit=True) as connection:
            connection.execute("CREATE TABLE filler (row text STORAGE PLAIN)")
            connection.execute(  # one row that fills each page
                "INSERT INTO filler SELECT repeat(md5(i::text), 250) FROM generate_series(1, %s) i",
                [size * MIB // PAGE],
            )
            connection.execute("CHECKPOINT")

    def through_stack(self, *standbys: str) -> float:
        """Seconds from the start of the first DataDirectory of these new standbys to the end of the last; they go afterwards."""
        ours = self._ours
        ours.declare(*standbys)
        events = ours.root / "events"
        os.sync()
        with _stamped(events) as stamps:
            ours.up("--event-log", str(events))
        # Its own copy: the standby's goes with the standby.
        passfile = ours.root / "pgpass"
        shutil.copyfile(next(ours.directory(standbys[0]).parent.glob("*.pgpass")), passfile)
        passfile.chmod(0o600)
        os.chown(passfile, service_account().uid, service_account().gid)
        ours.declare()
        ours.up()
        try:
            return stamps["resOutputsEvent"] - stamps["resourcePreEvent"]
        except KeyError:
            raise BenchmarkError("the engine's event log does not report when a base backup was made") from None

    def raw(self, count: int) -> float:
        """Seconds of so many pg_basebackup at once, with the options of the stack; after a `through_stack`."""
        targets = [self._ours.root / f"raw{n}" for n in range(count)]
        with self._slots(count) as slots:
            os.sync()
            began = time.monotonic()
            with ExitStack() as running:
                started = [running.enter_context(self._base_backup(*each)) for each in zip(targets, slots, strict=True)]
            took = time.monotonic() - began
        if failed := [one.args for one in started if one.returncode]:
            raise BenchmarkError(f"{failed[0]!r} ended with an error")
        for target in targets:
            shutil.rmtree(target)
        return took

    @contextmanager
    def _slots(self, count: int) -> Iterator[list[str]]:
        """So that no slot keeps WAL longer than its clone takes."""
        names = [f"bench{n}" for n in range(count)]
        with psycopg.connect(_superuser(self._ours), autocommit=True) as connection:
            for name in names:
                connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [name])
            yield names
            for name in names:
                connection.execute("SELECT pg_drop_replication_slot(%s)", [name])

    def _base_backup(self, target: Path, slot: str) -> "subprocess.Popen[bytes]":
        account = service_account()
        target.mkdir(mode=0o700)
        os.chown(target, account.uid, account.gid)
        passfile = str(self._ours.root / "pgpass")
        upstream = make_conninfo(
            host="127.0.0.1", port=self._ours.port, user="replicator", passfile=passfile, sslmode="prefer"
        )
        command = [
            *(str(self._installation.binaries / "pg_basebackup"), "--pgdata", str(target), "--dbname", upstream),
            *("--wal-method=stream", f"--slot={slot}", "--checkpoint=fast", "--verbose", "--progress", "--no-password"),
        ]
        return subprocess.Popen(
            [*account_prefix(), *command],
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def account_prefix() -> list[str]:
    """What makes a command behind it run as the servers' account."""
    account = service_account()
    if not account.switches:
        return []
    return ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups", "--"]


@contextmanager
def _stamped(pipe: Path) -> Iterator[dict[str, float]]:
    """When the first base backup began to be made and the last was: the log's own stamps are whole seconds."""
    os.mkfifo(pipe)
    stamps: dict[str, float] = {}
    # Read and write, so that neither side waits for the other to open it.
    descriptor = os.open(pipe, os.O_RDWR)

    def listen() -> None:
        with os.fdopen(os.dup(descriptor)) as lines:
            for line in lines:
                now, event = time.monotonic(), json.loads(line)
                if not event:
                    return
                for kind in ("resourcePreEvent", "resOutputsEvent"):
                    about = event.get(kind, {}).get("metadata", {})
                    if TYPE in about.get("type", "") and about.get("op") == "create":
                        stamps[kind] = stamps.get(kind, now) if kind == "resourcePreEvent" else now

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield stamps
    finally:
        os.write(descriptor, b"{}\n")
        thread.join()
        os.close(descriptor)
        pipe.unlink()


def _superuser(ours: Ours) -> str:
    found = LocalHost().postmaster(ours.directory("primary"))  # type: ignore[arg-type]
    if not found:
        raise BenchmarkError("the benchmark's own primary does not run")
    return make_conninfo(host=found.socket_directory, port=found.port, user="postgres", dbname="postgres")
