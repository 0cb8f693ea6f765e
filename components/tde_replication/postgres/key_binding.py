"""What a principal key is set for. (Percona pg_tde documentation, *Configure the principal key*.)

Compared before it is set: setting a key again is a rotation, which makes every standby fetch the key, or die. No pg_tde call is
transactional. All of it runs on the primary only: on a standby, even a refused call would rewrite its key files.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import ClassVar, Literal, Self

from tde_replication import hosts
from tde_replication.errors import Conflict, NoDatabase, NoExtension, SqlError, Unavailable, UserError
from tde_replication.postgres.key_provider import refuse_during_backup, refuse_on_standby
from tde_replication.postgres.on_primary import OnPrimary, Place
from tde_replication.postgres.opening import REPLAY_DEADLINE, delayed, expect_to_open
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.principal_key import SCOPES, keys_in_use
from tde_replication.postgres.replication_slot import others_streaming
from tde_replication.postgres.session import Session, server_session, session
from tde_replication.progress import note
from tde_replication.records import Cost
from tde_replication.rotations import is_earlier
from tde_replication.waiting import until


class KeyBinding(OnPrimary):
    """What a principal key is set for: the server (WAL), the default of every database's tables, or those of `database` alone."""

    database: str
    scope: Literal["server", "default", "database"]
    key: str
    provider: str
    standbys: list[tuple[str, str]] = []
    """Host and data directory of each standby that must be able to open the key before it is changed."""
    slots: list[str] = []
    """Theirs, in the same order."""
    adopted: bool = False
    """Whether the server was here before the stack: it may have standbys that the stack doesn't know."""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"scope"}
    not_compared: ClassVar[frozenset[str]] = frozenset({"database", "adopted"})
    create_only: ClassVar[frozenset[str]] = OnPrimary.create_only | frozenset({"standbys", "slots"})

    @property
    def identity(self) -> str:
        return f"key of {self.database}" if self.scope == "database" else f"{self.scope} key"

    def read(self) -> Self | None:
        with session(self, self.identity, self.database) as server:
            return self._live(PgTde(server))

    def _live(self, tde: PgTde) -> Self | None:
        bound = SCOPES[self.scope].bound(tde)
        return self.replace(key=bound[0], provider=bound[1]) if bound else None

    def _inherited(self, tde: PgTde, found: Self) -> bool:
        """Whether what is found for a database is the default key, which it has with its first encrypted table."""
        return self.scope == "database" and (found.key, found.provider) == SCOPES["default"].bound(tde)

    def costs(self, live: Self | None) -> Iterator[Cost]:
        if live:
            yield Cost(kind="rotation")

    def refusal(self, live: Self) -> str | None:
        if self.provider != live.provider or not is_earlier(self.key, live.key):
            return None
        return (
            f"{self.identity}: the server uses {live.key}, a later rotation of {self.key}, and Vault did not list it. "
            f"Nothing goes back to an earlier key, and nothing was changed: check whether Vault has {live.key}, and run `up` "
            "again"
        )

    def create(self) -> Self:
        with session(self, self.identity, self.database) as server:
            tde = PgTde(server)
            found = self._live(tde)
            if found is None:
                self._set(tde)
            elif self.changed(found):
                if self.adopted and not self._inherited(tde, found):
                    raise Conflict(
                        f'{self.identity}: the server has "{found.key}" of provider "{found.provider}" already: another one is a '
                        "rotation, and standbys that cannot open the new key crash. Rotate by hand, and run `up` again"
                    )
                self._rotate(tde)
        return self

    def update(self, live: Self) -> Self:
        del live
        with session(self, self.identity, self.database) as server:
            self._rotate(PgTde(server))
        return self

    def _rotate(self, tde: PgTde) -> None:
        if (found := self._live(tde)) and (refusal := self.refusal(found)):
            raise UserError(refusal)
        if lost := next((key.lost for key in keys_in_use(tde) if key.lost), None):
            raise UserError(f"{self.identity}: {lost}")
        asked = self._check_standbys(tde.server)
        self._set(tde)
        for place in asked:
            self._expect_opened(*place)

    def _check_standbys(self, server: Session) -> list[Place]:
        """Those that answered: they run, and can open what is to be set."""
        places = zip(self.standbys, self.slots, strict=True)
        asked = [place for place, slot in places if self._check_standby(server, *place, slot)]
        if self.adopted and (others := others_streaming(server, self.slots)):
            raise UserError(
                f"{self.identity}: standbys that this stack did not make stream from the server ({others}), and crash at a "
                f"rotation to a key that they cannot open: nothing was changed. Stop them, or rotate by hand once they can "
                f"open it"
            )
        return asked

    def _check_standby(self, primary: Session, host: str, data: str, slot: str) -> bool:
        """A standby that cannot reach Vault would die of the rotation; one that is down opens the key when it starts."""
        name = f"the standby on {data}"
        try:
            with server_session(
                hosts.host(host), PurePosixPath(data), f"{name} cannot open its keys", self.database
            ) as standby:
                tde = PgTde(standby)
                tde.call(SCOPES[self.scope].verify)
                expect_to_open(tde, self.provider, self.key, name)
                return True
        except Unavailable as why:
            if primary.row("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", [slot]):
                raise UserError(
                    f"{self.identity}: the standby on {data} streams, and whether it can open its keys cannot be asked ({why}): "
                    "nothing was changed"
                ) from None
            return False

    def _expect_opened(self, host: str, data: str) -> None:
        """Its former key provider, with token and files, goes only when every standby that runs has the new key."""
        purpose = f"{self.identity}: the standby on {data}"
        with server_session(hosts.host(host), PurePosixPath(data), purpose, self.database) as standby:
            tde, scope = PgTde(standby), SCOPES[self.scope]
            if delayed(standby):
                return
            if not until(lambda: scope.bound(tde) == (self.key, self.provider), seconds=REPLAY_DEADLINE):
                raise UserError(
                    f"{purpose} has not replayed in {REPLAY_DEADLINE:g} s that {self.key} of provider {self.provider} is set. "
                    "What it opened until now stays. Run `up` again when it has caught up"
                )
            tde.call(scope.verify)

    def _set(self, tde: PgTde) -> None:
        refuse_on_standby(tde.server, self.identity)
        refuse_during_backup(tde.server, self.identity)
        tde.call(SCOPES[self.scope].set, [self.key, self.provider])
        tde.call(SCOPES[self.scope].verify)

    def delete(self) -> None:
        """A database has the default key again. A server key can never be unset, and the default key is what tables are encrypted
        with: both stay."""
        if self.scope != "database":
            return
        with suppress(NoDatabase, NoExtension), session(self, self.identity, self.database) as server:
            tde = PgTde(server)
            found = self._live(tde)
            if found is None or self.changed(found) or self._inherited(tde, found):
                return
            self._check_standbys(server)
            refuse_on_standby(server, self.identity)
            refuse_during_backup(server, self.identity)
            try:
                tde.call("pg_tde_delete_key")
            except SqlError as error:  # tables and no default key, or one of the two cannot be opened now
                note(f"{self.identity}: {self.key} stays set: {str(error).removeprefix(f'{self.identity}: ')}")
