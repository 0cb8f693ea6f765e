"""(f): the clone of a database through the stack against pg_basebackup alone, from the same primary."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.ours import Ours
from benchmarks.place import BenchmarkError
from components.hosts.account import service_account
from components.hosts.installation import Installation
from components.hosts.local import LocalHost
from components.waiting import until

GIB = 1024**3
COPIES = 5
"""The primary with its WAL, the standby of before, the new one, the raw one; and one to spare."""
TYPE = "BaseBackup"
REPLAY_DEADLINE = 300.0


def refuse_full_disk(root: Path) -> None:
    free = shutil.disk_usage(root).free
    if free < COPIES * GIB:
        raise BenchmarkError(
            f"(f) needs {COPIES} GiB below {root}: {free / GIB:.1f} GiB are free. TMPDIR names another place"
        )


def fill(ours: Ours) -> None:
    """Write 1 GiB into the primary: one row that fills each page."""
    with psycopg.connect(_superuser(ours), autocommit=True) as connection:
        connection.execute("CREATE TABLE filler (row text STORAGE PLAIN)")
        connection.execute(
            "INSERT INTO filler SELECT repeat(md5(i::text), 250) FROM generate_series(1, %s) i", [GIB // 8192]
        )
        connection.execute("SELECT pg_create_physical_replication_slot('bench', true)")
        connection.execute("CHECKPOINT")
        behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn < pg_current_wal_flush_lsn()"
        # Else the standby of before would write beside the first clone.
        if not until(lambda: connection.execute(behind).fetchone() == (0,), seconds=REPLAY_DEADLINE):
            raise BenchmarkError(f"the standby has not replayed 1 GiB within {REPLAY_DEADLINE:g} s")
    # Its own copy: the standby's goes with the standby.
    passfile = ours.root / "pgpass"
    shutil.copyfile(next(ours.directory("standby1").parent.glob("*.pgpass")), passfile)
    passfile.chmod(0o600)
    os.chown(passfile, service_account().uid, service_account().gid)


def raw(ours: Ours, installation: Installation) -> float:
    """Seconds of pg_basebackup with the options of the stack."""
    target = ours.root / "raw"
    target.mkdir()
    account = service_account()
    os.chown(target, account.uid, account.gid)
    target.chmod(0o700)
    upstream = make_conninfo(
        host="127.0.0.1", port=ours.port, user="replicator", passfile=str(ours.root / "pgpass"), sslmode="prefer"
    )
    command = [
        *(str(installation.binaries / "pg_basebackup"), "--pgdata", str(target), "--dbname", upstream),
        *("--wal-method=stream", "--slot=bench", "--checkpoint=fast", "--verbose", "--progress", "--no-password"),
    ]
    ids = [f"--reuid={account.uid}", f"--regid={account.gid}", "--init-groups"]
    prefix = ["setpriv", *ids, "--"] if account.switches else []
    _settle()
    began = time.monotonic()
    subprocess.run([*prefix, *command], cwd="/", env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    took = time.monotonic() - began
    shutil.rmtree(target)
    return took


def through_stack(ours: Ours, standby: str) -> float:
    """Seconds in which the resource BaseBackup of a new standby, in place of the one before, was being made."""
    ours.declare(standby)
    events = ours.root / "events"
    _settle()
    with _stamped(events) as stamps:
        ours.up("--event-log", str(events))
    try:
        return stamps["resOutputsEvent"] - stamps["resourcePreEvent"]
    except KeyError:
        raise BenchmarkError(
            f"the engine's event log does not tell when the base backup of {standby} was made"
        ) from None


@contextmanager
def _stamped(pipe: Path) -> Iterator[dict[str, float]]:
    """When each kind of event of a base backup's creation came: the log's own stamps are whole seconds."""
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
                        stamps[kind] = now

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


def _settle() -> None:
    """Let what was written before reach the disk before the clock starts."""
    os.sync()
