"""Where pg_tde finds principal keys: a Vault. (Percona pg_tde documentation, *Configure key providers*.)

Compared before it is set: changing a provider writes WAL, which every standby replays.
"""

from contextlib import suppress
from pathlib import PurePosixPath
from typing import ClassVar, Self

import psycopg
from psycopg import sql
from pydantic.alias_generators import to_camel

from tde_replication import hosts
from tde_replication.errors import Conflict, NoDatabase, SqlError, Unavailable, UserError
from tde_replication.postgres.cipher import cipher_of_key, warnings
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.opening import REPLAY_DEADLINE, delayed, expect_own_keys
from tde_replication.postgres.pg_tde import PROVIDERS, PgTde
from tde_replication.postgres.session import Session, server_session, session
from tde_replication.progress import note
from tde_replication.waiting import until

CHANGE = "pg_tde_change_global_key_provider_vault_v2"


class KeyProvider(OnPrimary):
    """A global key provider of type vault-v2. Paths are the same on every server; a relative one counts from PGDATA."""

    database: str
    provider: str
    """Lower case: pg_tde tells 'VAULT' and 'vault' apart when it adds one and takes them for the same afterwards."""
    url: str
    mount_path: str
    token_path: str
    ca_path: str = ""
    namespace: str = ""
    """Vault's namespace that the mount is in; empty: the root's."""
    type: str = "vault-v2"
    """As pg_tde calls it: another one is not turned into a Vault's."""
    existing: bool = False
    """Whether the mount was there before the stack, as somebody else's."""
    mount_stays: bool = False
    """Whether the mount is left where the stack no longer declares it: as of the last `up`, which Pulumi goes by."""
    adopted: bool = False
    """Whether the server was here before the stack: a provider that it has of this name is used as it is, or not at all."""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"provider"}
    not_compared: ClassVar[frozenset[str]] = frozenset({"database", "adopted", "existing", "mount_stays"})

    @property
    def identity(self) -> str:
        return self.provider

    @property
    def _purpose(self) -> str:
        return f"key provider {self.provider}"

    def read(self) -> Self | None:
        with session(self, self._purpose, self.database) as server:
            return self._live(PgTde(server))

    def _live(self, tde: PgTde) -> Self | None:
        query = sql.SQL(
            "SELECT type, options->>'url', options->>'mountPath', options->>'tokenPath', "
            "coalesce(options->>'caPath', ''), coalesce(options->>'namespace', '') FROM {} WHERE lower(name) = lower(%s)"
        )
        rows = tde.server.shown(query.format(tde.table(PROVIDERS)), [self.provider])
        if not rows:
            return None
        kind, url, mount_path, token_path, ca_path, namespace = rows[0]
        if kind != self.type:
            return self.replace(type=kind)
        return self.replace(
            url=url, mount_path=mount_path, token_path=token_path, ca_path=ca_path, namespace=namespace.strip("/")
        )

    def _of_another_type(self, found: Self) -> str | None:
        if found.type == self.type:
            return None
        return f"{self._purpose}: one of type {found.type} has this name, and is left as it is: name another in vault.provider"

    def refusal(self, live: Self) -> str | None:
        if self.existing and not (live.existing or live.mount_stays):
            return (
                f'cluster.vault.existing: "{live.mount_path}" was made by this stack, which is disposable and would remove it '
                "with its keys: set disposable: false and run `up` first"
            )
        if live.existing and not self.existing:
            return (
                f'cluster.vault.existing: "{live.mount_path}" was not made by this stack, and Vault cannot mount a path twice: '
                "set it back to true"
            )
        return self._of_another_type(live)

    def create(self) -> Self:
        with session(self, self._purpose, self.database) as server:
            tde = PgTde(server)
            found = self._live(tde)
            if found is None:
                try:
                    self._call(tde, "pg_tde_add_global_key_provider_vault_v2")
                except UserError:
                    if self._live(tde):  # taken all the same: the next run would find it, and think that all is well
                        tde.call("pg_tde_delete_global_key_provider", [self.provider])
                    raise
            elif other := self._of_another_type(found):
                raise Conflict(other)
            elif changed := self.changed(found):
                if self.adopted:
                    others = ", ".join(
                        f"{to_camel(name)} ({getattr(found, name) or 'none'})" for name in sorted(changed)
                    )
                    raise Conflict(
                        f"{self._purpose}: the server has one of this name already, with another {others}: it is left as it is. "
                        "Name another in vault.provider"
                    )
                self._change(tde)
        return self

    def update(self, live: Self) -> Self:
        del live
        with session(self, self._purpose, self.database) as server:
            self._change(PgTde(server))
        return self

    def _change(self, tde: PgTde) -> None:
        """pg_tde asks the primary alone whether it opens its keys by the changed provider: what a standby cannot open, or only a
        warning tells of, is changed back."""
        refuse_during_backup(tde.server, self._purpose)
        before = self._live(tde)
        try:
            self._call(tde, CHANGE)
            for host, data in self.places:
                self._expect_opened(host, data)
        except UserError as why:
            if before is None or not self.changed(before) or self._live(tde) == before:
                raise  # pg_tde has refused it
            raise UserError(f"{str(why).rstrip('.')}. {before._changed_back(tde)}") from None  # noqa: SLF001 - our own

    def _changed_back(self, tde: PgTde) -> str:
        try:
            self._call(tde, CHANGE)
        except UserError as why:
            return f"It could not be changed back ({why})"
        return f"It was changed back to {self.url} (mount {self.mount_path})"

    def _expect_opened(self, host: str, data: str) -> None:
        """Whether this standby opens its keys by what was changed; one that is down does it at its start."""
        purpose = f"{self._purpose}: the standby on {data} cannot open its keys by {self.url}"
        try:
            with server_session(hosts.host(host), PurePosixPath(data), purpose, self.database) as standby:
                tde = PgTde(standby)
                if not standby.value("SELECT pg_is_in_recovery()") or delayed(standby):
                    return
                if not until(lambda: self._is_live(tde), seconds=REPLAY_DEADLINE):
                    raise UserError(f"{purpose}: it has not replayed the change in {REPLAY_DEADLINE:g} s")
                expect_own_keys(tde)
        except Unavailable as why:
            note(f"{self._purpose}: whether the standby on {data} can open its keys was not asked: {why}")

    def _is_live(self, tde: PgTde) -> bool:
        found = self._live(tde)
        return found is not None and not self.changed(found)

    def _call(self, tde: PgTde, function: str) -> None:
        """A warning is a failure that pg_tde tells later: a wrong mount or URL is taken with no more than that."""
        refuse_on_standby(tde.server, self._purpose)
        arguments = [self.provider, self.url, self.mount_path, self.token_path, self.ca_path or None]
        if self.namespace:  # the longer call came with pg_tde 2.1
            arguments.append(self.namespace)
        with warnings(tde.server) as told:
            tde.call(function, arguments)
        # A key of another length says nothing against the provider: the stack may be about to replace that key.
        if told := [warning for warning in told if not cipher_of_key(warning)]:
            raise UserError(
                f"{self._purpose}: {told[0]}: check vault:address, vault.mount and the server's Vault policy"
            )

    def delete(self) -> None:
        """Forget it where no key uses it; keys and what they encrypt stay. One that pg_tde cannot show now (no token, its
        library not loaded) stays too: what else is on the server must go all the same."""
        with suppress(NoDatabase), session(self, self._purpose, self.database) as server:
            try:
                tde = PgTde(server)
                there = self._live(tde)
            except UserError as why:
                note(f"{why} The key provider stays on the server")
                return
            if there and there.type == self.type:
                try:
                    tde.call("pg_tde_delete_global_key_provider", [self.provider])
                except SqlError as error:
                    if error.sqlstate != psycopg.errors.ObjectInUse.sqlstate:
                        raise


def refuse_on_standby(server: Session, purpose: str) -> None:
    """There, pg_tde rewrites key files before it fails, and makes keys without failing."""
    if server.value("SELECT pg_is_in_recovery()"):
        raise Conflict(
            f"{purpose}: this server is a standby now: keys are changed on the primary only. Nothing was changed"
        )


def refuse_during_backup(server: Session, purpose: str) -> None:
    """pg_tde's documentation forbids key and provider changes while a base backup runs."""
    if server.row("SELECT 1 FROM pg_stat_progress_basebackup"):
        raise UserError(
            f"{purpose}: a base backup of the primary is running: nothing was changed. Run `up` again when it has ended"
        )
