"""The principal key, and what it is set for. (Percona pg_tde documentation, *Configure the principal key*.)

Compared before it is set: setting a key again is a rotation, which makes every standby fetch the key, or die. No pg_tde call is
transactional. All of it runs on the primary only: on a standby, even a refused call would rewrite its key files.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import ClassVar, Literal, Self

import psycopg
from psycopg import sql

from tde_replication import hosts
from tde_replication.errors import Conflict, SqlError, Unavailable, UserError
from tde_replication.postgres.cipher import OLDEST, PARAMETER, cipher_in_force, cipher_of_key, warnings
from tde_replication.postgres.key_provider import refuse_during_backup, refuse_on_standby
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.pg_tde import DEFAULT_KEY, SERVER_KEY, PgTde
from tde_replication.postgres.replication_slot import others_streaming
from tde_replication.postgres.session import Session, server_session, session
from tde_replication.records import Cost, Fact
from tde_replication.rotations import is_earlier
from tde_replication.values import Cipher

LOST = ("P0002", "XX001")
"""What pg_tde says of a key that is gone from Vault, and of one that was replaced there by another."""


@dataclass(frozen=True)
class _Scope:
    """The functions of pg_tde for it."""

    info: str
    verify: str
    set: str

    def bound(self, tde: PgTde) -> tuple[str, str] | None:
        """The key that is set, and its provider."""
        rows = tde.server.shown(sql.SQL("SELECT key_name, provider_name FROM {}").format(tde.table(self.info)))
        return rows[0][:2] if rows and rows[0][0] else None


SCOPES = {
    "server": _Scope(SERVER_KEY, "pg_tde_verify_server_key", "pg_tde_set_server_key_using_global_key_provider"),
    "default": _Scope(DEFAULT_KEY, "pg_tde_verify_default_key", "pg_tde_set_default_key_using_global_key_provider"),
}


@dataclass(frozen=True)
class KeyInUse:
    """A principal key that is set on a server."""

    scope: str
    name: str
    provider: str
    problem: str = ""
    """What the server's own check of it says; empty: nothing."""
    sqlstate: str = ""
    cipher: Cipher | None = None
    """The cipher that its length is for; None where the server cannot open it."""

    @property
    def lost(self) -> str | None:
        """Why what is encrypted with it cannot be read any more once the servers have stopped."""
        if self.sqlstate not in LOST:
            return None
        return (
            f"principal key {self.name} is lost: {self.problem} What is encrypted with it can be read as long as the servers "
            "run, and not after. Nothing was changed: restore the key in Vault, or copy the data out now"
        )


def keys_in_use(tde: PgTde) -> Iterator[KeyInUse]:
    """Each is asked for in Vault when its turn comes."""
    server = tde.server
    for name, scope in SCOPES.items():
        bound = scope.bound(tde)
        if not bound:
            continue
        found = KeyInUse(name, *bound)
        try:
            with warnings(server) as told:
                tde.call(scope.verify)
        except UserError as problem:
            state = problem.sqlstate if isinstance(problem, SqlError) else ""
            yield replace(found, problem=str(problem).removeprefix(f"{server.purpose}: "), sqlstate=state)
            continue
        others = [cipher for warning in told if (cipher := cipher_of_key(warning))]
        yield replace(found, cipher=others[0] if others else cipher_in_force(server) or OLDEST)


class PrincipalKey(OnPrimary):
    """A principal key in Vault, made by the primary. Key material is never deleted."""

    database: str
    key: str
    provider: str
    cipher: Cipher = "aes_128"
    """The cipher that it must be long enough for: a key keeps its length."""
    available: str = "in Vault"
    """"in Vault", or what the primary's own check of it says."""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"key", "provider"}
    not_compared: ClassVar[frozenset[str]] = frozenset({"database", "cipher"})

    @property
    def identity(self) -> str:
        return self.key

    @property
    def _purpose(self) -> str:
        return f"principal key {self.key}"

    def read(self) -> Self:
        """Only a key that is in use can be asked for: pg_tde has no call that lists keys."""
        with session(self, self._purpose, self.database) as server:
            for used in keys_in_use(PgTde(server)):
                if (used.name, used.provider) == (self.key, self.provider):
                    return self.replace(available=used.problem or "in Vault")
        return self

    def facts(self) -> Iterator[Fact]:
        """By which pg_tde it is used. How old it is, Vault knows: see `vault.key_age`."""
        with session(self, self._purpose, self.database) as server:
            tde = PgTde(server)
            version = server.row(
                sql.SQL("SELECT *, current_setting('server_version_num') FROM {}").format(tde.table("pg_tde_version"))
            )
            if version:
                yield Fact(kind="pg_tde", of=self.key, text=str(version[0]), number=int(version[1]))

    def create(self) -> Self:
        with session(self, self._purpose, self.database) as server:
            refuse_on_standby(server, self._purpose)
            if cipher_in_force(server):
                server.rows("SELECT set_config(%s, %s, false)", [PARAMETER, self.cipher])
            elif self.cipher != OLDEST:
                raise Conflict(
                    f"{self._purpose}: cipher: {self.cipher} needs pg_tde 2.2 or newer, and the primary has an older one. No key "
                    f"was made: install a newer one, or write cipher: {OLDEST}"
                )
            tde = PgTde(server)
            try:
                with warnings(server) as told:
                    tde.call("pg_tde_create_key_using_global_key_provider", [self.key, self.provider])
            except SqlError as error:
                if error.sqlstate != psycopg.errors.InvalidParameterValue.sqlstate:
                    raise UserError(
                        f"{str(error).rstrip('.')}: the primary's Vault token must be allowed to create and read it; nothing "
                        "was changed"
                    ) from None
                # One SQLSTATE stands for all that can be wrong here; only the text says that an earlier run made it.
                if "already exists" not in str(error):
                    raise
                if any(map(cipher_of_key, told)):
                    raise Conflict(
                        f"{self._purpose} is in Vault already, but does not have the length for cipher: {self.cipher}. It is "
                        f"left as "
                        "it is: set key.name to another name"
                    ) from None
        return self

    def update(self, live: Self) -> Self:
        """Look again: what was in its way (a token, a policy) may be repaired by now."""
        del live
        found = self.read()
        if found.available != self.available:
            raise UserError(
                f"{self._purpose} cannot be opened: {found.available}. It is never made again over what is encrypted with it: "
                "bring Vault, its policy or the key back, and run `up` again"
            )
        return self

    def delete(self) -> None:
        """It stays in Vault: backups and old data directories need it."""


class KeyBinding(OnPrimary):
    """What the principal key is set for: the server (WAL), or the default of every database's tables."""

    database: str
    scope: Literal["server", "default"]
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
        return f"{self.scope} key"

    def read(self) -> Self | None:
        with session(self, self.identity, self.database) as server:
            return self._live(PgTde(server))

    def _live(self, tde: PgTde) -> Self | None:
        bound = SCOPES[self.scope].bound(tde)
        return self.replace(key=bound[0], provider=bound[1]) if bound else None

    def cost(self, live: Self | None) -> Cost | None:
        return Cost(kind="rotation") if live else None

    def refusal(self, live: Self) -> str | None:
        if not is_earlier(self.key, live.key):
            return None
        return (
            f"{self.identity}: the server uses {live.key}, a later rotation of {self.key}, and Vault did not list it. "
            f"Nothing goes back to an earlier key, and nothing was changed: look whether Vault has {live.key}, and run `up` again"
        )

    def create(self) -> Self:
        with session(self, self.identity, self.database) as server:
            tde = PgTde(server)
            found = self._live(tde)
            if found is None:
                self._set(tde)
            elif self.changed(found):
                if self.adopted:
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
        server = tde.server
        if (found := self._live(tde)) and (refusal := self.refusal(found)):
            raise UserError(refusal)
        if lost := next((key.lost for key in keys_in_use(tde) if key.lost), None):
            raise UserError(f"{self.identity}: {lost}")
        for (host, data), slot in zip(self.standbys, self.slots, strict=True):
            self._check_standby(server, host, PurePosixPath(data), slot)
        if self.adopted and (others := others_streaming(server, self.slots)):
            raise UserError(
                f"{self.identity}: standbys that this stack did not make stream from the server ({others}), and crash at a "
                f"rotation to a key that they cannot open: nothing was changed. Stop them, or rotate by hand once they can "
                f"open it"
            )
        self._set(tde)

    def _check_standby(self, primary: Session, host: str, data: PurePosixPath, slot: str) -> None:
        """A standby that cannot reach Vault would die of the rotation; one that is down opens the key when it starts."""
        try:
            with server_session(
                hosts.host(host), data, f"the standby on {data} cannot open its keys", self.database
            ) as standby:
                PgTde(standby).call(SCOPES[self.scope].verify)
        except Unavailable as why:
            if primary.row("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", [slot]):
                raise UserError(
                    f"{self.identity}: the standby on {data} streams, and whether it can open its keys cannot be asked ({why}): "
                    "nothing was changed"
                ) from None

    def _set(self, tde: PgTde) -> None:
        refuse_on_standby(tde.server, self.identity)
        refuse_during_backup(tde.server, self.identity)
        tde.call(SCOPES[self.scope].set, [self.key, self.provider])
        tde.call(SCOPES[self.scope].verify)

    def delete(self) -> None:
        """A server key can never be unset, and tables are encrypted with the default key: both stay."""
