"""A standby's physical slot on the server that it streams from: made apart from the base backup, so that a failed backup can be
retried."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import ClassVar, Self

from tde_replication import hosts
from tde_replication.errors import AccessDenied, Conflict, Unavailable, UserError
from tde_replication.postgres.marker import marker
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.session import Session, session
from tde_replication.waiting import until

RELEASE_DEADLINE = 10.0
SLOTS = "SELECT slot_name, slot_type, wal_status, invalidation_reason FROM pg_replication_slots"


class ReplicationSlot(OnPrimary):
    slot: str
    wal_status: str = "reserved"
    """"reserved" while the WAL that the standby needs is there ("extended" and "unreserved" still have it), else "lost"."""
    slot_type: str = "physical"
    made_at: str = ""
    """Which data directory of all that were ever there, where it lies on a standby: a new clone has no slots."""

    stack: str = ""
    standby_host: str = ""
    standby_directory: str = ""
    """Where its standby lies: another one that streams from a slot of this name is not disturbed."""

    create_only: ClassVar[frozenset[str]] = OnPrimary.create_only | frozenset(
        {"stack", "standby_host", "standby_directory"}
    )
    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"slot", "wal_status", "slot_type"}

    @property
    def identity(self) -> str:
        return self.slot

    @property
    def _purpose(self) -> str:
        return f"replication slot {self.slot}"

    def read(self) -> Self | None:
        with session(self, self._purpose) as server:
            return self._live(server)

    def _live(self, server: Session) -> Self | None:
        found = {name: about for name, *about in server.known(SLOTS)}
        if self.slot not in found:
            return None
        slot_type, wal_status, _ = found[self.slot]
        # "extended" and "unreserved" come and go with load and checkpoints: no drift. A slot that reserves nothing yet
        # (no status) would let WAL go that a clone needs.
        return self.replace(slot_type=slot_type, wal_status="lost" if wal_status in {"lost", None} else "reserved")

    def refusal(self, live: Self) -> str | None:
        if live.slot_type == self.slot_type:
            return None
        return (
            f"{self._purpose}: a {live.slot_type} slot has taken this name: it is left as it is. Drop it by hand, and `up` makes "
            "the right one"
        )

    def create(self) -> Self:
        with session(self, self._purpose) as server:
            found = self._live(server)
            if found is not None and found.slot_type != "physical":
                raise Conflict(
                    f"{self._purpose}: a {found.slot_type} slot of this name is there already: it is left as it is. Drop it by "
                    "hand, or give the standby another name: its slot is named after it"
                )
            if found is not None and not self._is_free(server) and not self._has_its_standby():
                raise Conflict(
                    f"{self._purpose}: something else streams from a slot of this name: it is left as it is. Give the standby "
                    "another name"
                )
            if found is not None and found.wal_status == "lost":
                self._drop(server)
                found = None
            if found is None:
                server.rows("SELECT pg_create_physical_replication_slot(%s, immediately_reserve => true)", [self.slot])
            return self

    def update(self, live: Self) -> Self:
        del live
        return self.create()

    def delete(self) -> None:
        with session(self, self._purpose) as server:
            if self.slot_type != "physical":
                return  # somebody else put it there
            if not self._is_free(server) and self._has_running_standby():
                return  # another resource of the stack has it now: the standby's upstream was named, or is named no more
            self._drop(server)

    @property
    def is_free(self) -> bool:
        """Whether it is a slot of its type from which nobody streams."""
        with session(self, self._purpose) as server:
            found = self._live(server)
            return found is not None and found.slot_type == self.slot_type and self._is_free(server)

    def _is_free(self, server: Session, seconds: float = 1.0) -> bool:
        """Whether nobody streams from it, or who did has gone within that time: a server notices within milliseconds."""
        query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
        return until(lambda: server.value(query, [self.slot]) is None, seconds=seconds)

    def _has_its_standby(self) -> bool:
        """Whether its own standby runs, of which Pulumi's state may have been lost."""
        if not self.standby_host:
            return False
        machine, data = hosts.host(self.standby_host), PurePosixPath(self.standby_directory)
        return marker(machine, data).get("stack") == self.stack and machine.serves(data)

    def _has_running_standby(self) -> bool:
        """As far as can be asked: where it cannot, the slot goes with the rest of its standby."""
        try:
            return self._has_its_standby()
        except (Unavailable, AccessDenied):
            return False

    def _drop(self, server: Session) -> None:
        """Drop it, once nobody streams from it; whoever still does after a moment is disconnected."""
        if not self._is_free(server):
            server.rows(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active",
                [self.slot],
            )
            if not self._is_free(server, RELEASE_DEADLINE):
                raise UserError(
                    f"{self._purpose}: something reconnects to it faster than it can be dropped: stop the standby that streams "
                    "from it"
                )
        server.rows(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = %s AND slot_type = 'physical'",
            [self.slot],
        )


def others_streaming(server: Session, own: Sequence[str]) -> str:
    """The physical standbys that stream from `server` by none of the slots in `own`: "app from 192.0.2.9"; empty: none."""
    rows = server.rows(
        "SELECT application_name, coalesce(host(client_addr), 'a socket') FROM pg_stat_replication AS sender "
        "LEFT JOIN pg_replication_slots AS slot ON slot.active_pid = sender.pid "
        "WHERE sender.state <> 'backup' AND slot.slot_type IS DISTINCT FROM 'logical' "
        "AND NOT coalesce(slot.slot_name = ANY(%s), false) ORDER BY 1",
        [list(own)],
    )
    return ", ".join(f"{name} from {address}" for name, address in rows)
