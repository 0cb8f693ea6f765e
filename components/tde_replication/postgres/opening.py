"""Whether a standby can open a key that is not set yet: by its own token, CA and network."""

from contextlib import suppress
from pathlib import PurePosixPath

from psycopg import errors, sql

from tde_replication.errors import NoExtension, SqlError, UserError
from tde_replication.hosts.base import Host
from tde_replication.postgres.pg_tde import DEFAULT_KEY, PROVIDERS, SERVER_KEY, PgTde
from tde_replication.postgres.session import Session, server_session
from tde_replication.progress import note
from tde_replication.waiting import until

REPLAY_DEADLINE = 60.0
"""Seconds for a standby to replay what was just changed on the primary."""


def delayed(standby: Session) -> bool:
    """Whether it replays everything only after a time that somebody has chosen."""
    return bool(standby.value("SELECT current_setting('recovery_min_apply_delay') <> '0'"))


def expect_own_keys(tde: PgTde) -> None:
    """Raise `UserError` where the server cannot open the keys that are set for itself and by default: it asks Vault for them."""
    for info, verify in ((SERVER_KEY, "pg_tde_verify_server_key"), (DEFAULT_KEY, "pg_tde_verify_default_key")):
        if tde.server.row(sql.SQL("SELECT 1 FROM {} WHERE key_name IS NOT NULL").format(tde.table(info))):
            tde.call(verify)


def why_closed(host: Host, data: PurePosixPath) -> str:
    """Why the server cannot open its keys now; empty where it can, or has none."""
    purpose = f"the server in {data}"
    try:
        with server_session(host, data, purpose) as server:
            names = server.rows("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname <> 'postgres', 1")
        for (name,) in names:
            with suppress(NoExtension), server_session(host, data, purpose, name) as server:
                expect_own_keys(PgTde(server))
                break
    except UserError as why:
        return str(why)
    return ""


def expect_to_open(tde: PgTde, provider: str, key: str, standby: str) -> None:
    """Raise `UserError` where the `standby` cannot open `key`, which Vault has, by way of `provider`.

    pg_tde has no function that opens a key without setting it. So the standby is told to make this one, which works in recovery
    too: it asks Vault, and answers that the key exists already. It can make none: its policy lets it read, and no more.
    """
    server = tde.server

    def known() -> bool:
        query = sql.SQL("SELECT 1 FROM {} WHERE name = %s").format(tde.table(PROVIDERS))
        return server.row(query, [provider]) is not None

    if delayed(server) and not known():
        note(
            f"{standby} replays late (applyDelay), and does not know the key provider {provider} yet: whether it can open {key} "
            "cannot be asked"
        )
        return
    if not until(known, seconds=REPLAY_DEADLINE):
        raise UserError(
            f"{server.purpose}: it has not replayed in {REPLAY_DEADLINE:g} s that there is a key provider {provider}"
        )
    try:
        tde.call("pg_tde_create_key_using_global_key_provider", [key, provider])
    except SqlError as error:
        # One SQLSTATE stands for all that can be wrong here; only the text says that it has read the key.
        if error.sqlstate != errors.InvalidParameterValue.sqlstate or "already exists" not in str(error):
            raise
