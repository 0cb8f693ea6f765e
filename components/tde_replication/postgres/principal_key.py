"""Principal keys: those in Vault, and those that a server uses. (Percona pg_tde documentation, *Configure the principal key*.)

No pg_tde call is transactional. All of it runs on the primary only: on a standby, a key would be made without an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import psycopg
from psycopg import sql

from tde_replication.errors import Conflict, SqlError, UserError
from tde_replication.postgres.cipher import OLDEST, PARAMETER, cipher_in_force, cipher_of_key, warnings
from tde_replication.postgres.key_provider import refuse_on_standby
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.pg_tde import DATABASE_KEY, DEFAULT_KEY, SERVER_KEY, PgTde
from tde_replication.postgres.session import session
from tde_replication.records import Fact
from tde_replication.values import Cipher

LOST = ("P0002", "XX001")
"""What pg_tde says of a key that is gone from Vault, and of one that was replaced there by another."""


@dataclass(frozen=True)
class Scope:
    """What a principal key is set for, by the functions of pg_tde for it."""

    info: str
    verify: str
    set: str

    def bound(self, tde: PgTde) -> tuple[str, str] | None:
        """The key that is set, and its provider."""
        rows = tde.server.shown(sql.SQL("SELECT key_name, provider_name FROM {}").format(tde.table(self.info)))
        return rows[0][:2] if rows and rows[0][0] else None


SCOPES = {
    "server": Scope(SERVER_KEY, "pg_tde_verify_server_key", "pg_tde_set_server_key_using_global_key_provider"),
    "default": Scope(DEFAULT_KEY, "pg_tde_verify_default_key", "pg_tde_set_default_key_using_global_key_provider"),
    "database": Scope(DATABASE_KEY, "pg_tde_verify_key", "pg_tde_set_key_using_global_key_provider"),
}
"""The last is that of the session's database. pg_tde shows the default key there as soon as a table is encrypted with it."""


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
    found_default = None
    for name, scope in SCOPES.items():
        bound = scope.bound(tde)
        if not bound or (name == "database" and bound == found_default):
            continue
        if name == "default":
            found_default = bound
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
