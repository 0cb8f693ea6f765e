"""Whether a clone can follow its primary by streaming."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath

from tde_replication.hosts.base import Host
from tde_replication.postgres.archived import Archived
from tde_replication.postgres.control import ControlData, position
from tde_replication.postgres.replication_slot import SLOTS
from tde_replication.postgres.session import Session, server_session

WAL_GONE = "the WAL that it needs is gone"
ASTRAY = "it has WAL up to "
IN_CLEAR = "it runs without pg_tde, and replays in clear what is encrypted"
WAL_FILE = r"[0-9A-F]{24}"
NOWHERE = "FFFFFFFF/FFFFFFFF"
OLDEST_WAL = "SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"


@dataclass(frozen=True)
class Clone:
    """A standby's data directory, or that of a former primary which stopped cleanly."""

    machine: Host
    path: PurePosixPath
    control: ControlData
    slot: str
    primary: Callable[[], AbstractContextManager[Session]]
    sender: Callable[[], AbstractContextManager[Session]]
    """The server that it streams from: the primary, or another standby."""
    archived: Archived | None = None
    """What is archived of the primary's WAL, as the standby finds it; None: it looks into no archive."""
    demoted: bool = False
    """Whether it was the primary itself: the last record that it wrote begins where its control file says that it ends."""

    @property
    def runs_without_pg_tde(self) -> bool:
        """Then its files of encrypted tables are no good, with pg_tde loaded again neither."""
        if not self.machine.serves(self.path):
            return False
        with self._itself() as standby:
            return standby.row("SELECT 1 FROM pg_settings WHERE name = 'pg_tde.wal_encrypt'") is None

    def missing(self) -> str | None:
        """What it needs and the server that it streams from has not, or has itself and the primary has not."""
        # In this order: that server's oldest WAL goes while the clone comes to need less. The clone may go on to another timeline
        # meanwhile, and the primary is further than any standby of its own.
        with self.sender() as sender:
            slots = {name: reason for name, _, _, reason in sender.known(SLOTS)}
            [[oldest]] = sender.known(OLDEST_WAL)
        lost = slots.get(self.slot) == "wal_removed"
        if lost and not self.archived:
            return WAL_GONE
        reached, needed = self._place()
        with self.primary() as primary:
            # Also of one that streams: from the beginning of a WAL file, which the primary has, though not to where it has it.
            if astray := self._astray(reached, self._timeline(), primary):
                return astray
            last = self._last_files(primary) if self.archived else {}
        # Also where its slot looks well: a new slot does not bring back WAL that was removed before it was made.
        kept = self.control.segment(f"{self.control.timeline:08X}{oldest}")
        first = self.control.segment(self.control.redo_wal_file) if lost and needed is None else needed
        gone = first is not None and first < kept and not (self.archived and self.archived.has(first, kept, last))
        return WAL_GONE if gone else None

    def _astray(self, reached: str, mine: int, primary: Session) -> str | None:
        """Why it cannot follow: it has WAL that the primary does not have."""
        # To where the primary inserts, not flushes: a record that ends a WAL file counts up to the file's end for a standby
        # that has replayed it, while the primary still writes the rest of that file.
        now = primary.row(
            "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), pg_current_wal_insert_lsn()::text "
            "WHERE NOT pg_is_in_recovery()"
        )
        if now is None:
            return None  # it is no primary now: its own resource says so
        timeline, end = int(now[0], 16), now[1]
        if mine > timeline:
            return f"it is on timeline {mine}, the primary on {timeline}"
        if mine < timeline:
            end = end_of(primary, mine, timeline)
        if position(reached) + self.demoted > position(end):
            return beyond(reached, mine, end)
        return None

    def _last_files(self, primary: Session) -> dict[int, int]:
        """The number of the last WAL file of each timeline that the primary has come by."""
        now = primary.value(
            "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) WHERE NOT pg_is_in_recovery()"
        )
        if now is None:
            return {}
        current = int(now, 16)
        ends = {**history(primary, current), current: NOWHERE}
        return {timeline: position(end) // self.control.segment_size for timeline, end in ends.items()}

    def fork(self) -> str:
        """Where its timeline ends on the primary, which has gone on to a later one; empty where it has not."""
        mine = self._timeline()
        with self.primary() as primary:
            now = primary.value(
                "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) WHERE NOT pg_is_in_recovery()"
            )
            if now is None:
                return ""
            end = end_of(primary, mine, int(now, 16))
        return "" if end == NOWHERE else f"{end} of timeline {mine}"

    def _place(self) -> tuple[str, int | None]:
        """The LSN up to which it has WAL, and the number of the first WAL file that it needs of the primary; None where it does
        not know that yet."""
        if not self.machine.serves(self.path):
            # It starts with what it has. A file made ready for later passes for WAL here: once it runs, it knows better.
            held = {self.control.segment(name) for name in self._wal_files()}
            first = self.control.segment(self.control.redo_wal_file)
            return self.control.reached, next(number for number in count(first) if number not in held)
        with self._itself() as standby:
            reached, asked = standby.row(
                "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text, "
                "pg_last_wal_receive_lsn() IS NOT NULL"
            ) or (None, False)
        # Before it has asked the primary for any, it replays what it has itself.
        return reached or self.control.reached, position(reached) // self.control.segment_size if asked else None

    def _wal_files(self) -> list[str]:
        return [name for name in self.machine.listing(self.path / "pg_wal") if re.fullmatch(WAL_FILE, name)]

    def _timeline(self) -> int:
        """The one it is on: what pg_controldata says is that of its last restartpoint."""
        return max(self.control.timeline, *(int(name[:8], 16) for name in self._wal_files()), 0)

    def _itself(self) -> AbstractContextManager[Session]:
        return server_session(self.machine, self.path, f"the standby on {self.path}")


def beyond(reached: str, timeline: int, end: str) -> str:
    return f"{ASTRAY}{reached} of timeline {timeline}, which ends at {end} on the primary"


def history(primary: Session, current: int) -> dict[int, str]:
    """Where each earlier timeline of the primary ends, as far as it says."""
    text = primary.value("SELECT pg_read_file('pg_wal/' || %s, true)", [f"{current:08X}.history"])
    lines = (line.split() for line in (text or "").splitlines())
    return {int(line[0]): line[1] for line in lines if len(line) > 1 and line[0].isdecimal()}


def end_of(primary: Session, timeline: int, current: int) -> str:
    """Where an earlier timeline of the primary ends."""
    return history(primary, current).get(timeline, NOWHERE)  # where it does not say, the standby finds out for itself
