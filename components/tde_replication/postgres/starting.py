"""Starting a server, and what is told and asked before one is restarted."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from tde_replication.errors import Unavailable, UserError
from tde_replication.hosts.base import Postmaster
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.session import Session, session
from tde_replication.progress import progress
from tde_replication.records import Cost, roughly
from tde_replication.waiting import until

START_DEADLINE = 3600.0
"""Seconds for crash recovery, or until a clone is consistent; a server that dies is noticed at once."""
SILENT = 1.0
"""Seconds that a start may take without a word of it: most take less."""
LAUNCH_DEADLINE = 60.0
"""Seconds until a server's process shows: on a busy machine, systemd alone may take ten. One that dies says so before."""
ABSENCE_DEADLINE = 2.0
"""Seconds that a server which was seen may be out of sight without a word of it: its lock file is written in several steps, and
what looks into a container may be slow."""
REFUSAL_DEADLINE = 5.0
"""Seconds in which a server that takes connections must take ours: all may be in use for a moment."""
STOP_DEADLINE = 120.0
OUTLIVED = (
    "terminating ",
    "the database system is ",
    "could not connect to the primary ",
    "could not start WAL streaming",
    "could not receive data from WAL stream",
    "could not send data to WAL stream",
    "highest timeline ",
)
"""How a session or a WAL receiver ends, which a server outlives. Some logs are dated when they are read: they may be of the run
before, too."""
UNTAGGED = "postgres: "
"""What a server writes before it has a log, and then ends: combinations of values that cannot be."""
SERVICE_MANAGER = re.compile(r"[\w@.\\-]+\.service: |Started |Starting |Stopped ")


def start(server: OnServer, name: str, binaries: str) -> None:
    """Start a server, and wait until it answers; where it dies, say what it wrote."""
    machine, began = server.machine, time.monotonic()
    _stop_lost(server, binaries)
    mark = machine.start(PurePosixPath(binaries), server.data)

    def log() -> list[str]:
        return machine.log_since(server.data, mark).splitlines()

    def died() -> bool:
        return any(map(last_words, log()))

    _seen(server, died, LAUNCH_DEADLINE)
    last, ready_since = "", 0.0

    def answers() -> bool:
        nonlocal last, ready_since
        found = _seen(server, died, ABSENCE_DEADLINE)
        if not found:
            raise UserError(f"server {name} did not start: {cause_of_end(log())}")
        try:
            with session(server, f"server {name}"):
                return True
        except Unavailable as reason:
            last = str(reason)
        if found.ready:  # and was before it was asked
            ready_since = ready_since or time.monotonic()
        _expect_to_let_in(found, name, last, ready_since)
        if time.monotonic() - began > SILENT:
            progress(f"starting: {last}")
        return False

    if not until(answers, seconds=START_DEADLINE):
        raise UserError(
            f"server {name} is still starting after {START_DEADLINE:g} s, and goes on by itself ({last}): see its log, and run "
            "`up` again"
        )


def _expect_to_let_in(found: Postmaster, name: str, last: str, ready_since: float) -> None:
    """`last`: why it did not until now; `ready_since`: when it was first seen to take connections, or 0."""
    if found.closed:
        raise UserError(
            f"server {name} has started and takes no connections, because its hot_standby is off: it cannot be checked. It is "
            "left running. Set hot_standby to on where it is set, and restart the server"
        )
    if ready_since and time.monotonic() - ready_since > REFUSAL_DEADLINE:
        raise UserError(
            f"server {name} has started, and does not accept the superuser postgres ({last}): see its pg_hba.conf. It is left "
            f"running"
        )


def _stop_lost(server: OnServer, binaries: str) -> None:
    """A server whose directory was removed under it still has the port."""
    found = server.machine.postmaster(server.data)
    if found and found.lost:
        server.machine.stop(PurePosixPath(binaries), server.data, deadline=STOP_DEADLINE)


def _seen(server: OnServer, died: Callable[[], bool], seconds: float) -> Postmaster | None:
    """Its process, waited for unless its log tells of its end."""
    found: list[Postmaster | None] = []

    def settled() -> bool:
        found[:] = [server.machine.postmaster(server.data)]
        return found != [None] or died()

    until(settled, seconds=seconds)
    return found[0]


def last_words(line: str) -> str | None:
    """What a line of a server's log says of its end; None where it says nothing of that."""
    if line.startswith(UNTAGGED):
        return line.removeprefix(UNTAGGED).strip()
    found = re.search(r"(?:FATAL|PANIC):\s+(.*)", line)
    continued = line.startswith("\t")  # another line's message goes on
    return found[1].strip() if found and not continued and not found[1].startswith(OUTLIVED) else None


def cause_of_end(log: Sequence[str]) -> str:
    """Why a server ended, from its log since it was started."""
    fatal = [words for line in log if (words := last_words(line))]
    if not fatal:
        # In another language, or a program's on the way to it: the last line that is no service manager's.
        last = [line.strip() for line in log if line.strip() and not SERVICE_MANAGER.match(line)][-1:]
        return f"the last line of its log is: {last[0]}" if last else "its log is empty"
    cause = fatal[-1]
    if cause.endswith("contains errors"):  # which ones, the log says before
        cause += "".join(f": {line.split('LOG:')[-1].strip()}" for line in log if "LOG:" in line)
    return cause


def restart(server: OnServer, name: str, binaries: str) -> None:
    """Stop, start, and wait until it answers."""
    with session(server, f"server {name}") as running:
        refuse_wrong_files(running, name)
    server.machine.stop(PurePosixPath(binaries), server.data, deadline=STOP_DEADLINE)
    start(server, name, binaries)


def refuse_wrong_files(server: Session, name: str) -> None:
    """Leave a server running that could not start again."""
    if wrong := wrong_file(server, name):
        raise UserError(wrong)


def wrong_file(server: Session, name: str) -> str | None:
    """Which line of a server's files would keep it from starting again."""
    wrong = server.row(
        "SELECT file_name, line_number, error FROM pg_hba_file_rules WHERE error NOT LIKE '% record cannot match because %' "
        # What waits for a restart has an error there too.
        "UNION ALL SELECT sourcefile, sourceline, error FROM pg_file_settings AS f "
        "WHERE error IS NOT NULL AND sourcefile IS NOT NULL "
        "AND NOT EXISTS (SELECT FROM pg_settings WHERE lower(name) = lower(f.name) AND context = 'postmaster')"
    )
    if not wrong:
        return None
    return (
        f"line {wrong[1]} of {wrong[0]} is wrong ({wrong[2]}): server {name}, which must be restarted, could not start again "
        "and is left running. Correct that line"
    )


def restart_cost(name: str, parameters: Sequence[str], allowed: str, seconds: float | None = None) -> Cost:
    """That of a change that takes a restart; the last one took `seconds`."""
    late = f"{', '.join(parameters)} can only change at start"
    if allowed == "refused":
        objection = "and the stack says restart: refused: `up` will fail"
        return Cost(kind="by hand", server=name, text=f"server {name} would have to be restarted ({late}), {objection}")
    measured = f"; its last restart took {roughly(seconds)}" if seconds is not None else ""
    return Cost(kind="restart", server=name, text=f"server {name} will be restarted: {late}{measured}", seconds=seconds)


def restart_objected(name: str, parameters: Sequence[str]) -> str:
    """Why such a change is not made where no restart is allowed."""
    return (
        f"server {name} must be restarted for {', '.join(parameters)}, and the stack says restart: refused: nothing is changed. "
        "Set it by ALTER SYSTEM and restart the server in your own time, or set restart: allowed"
    )
