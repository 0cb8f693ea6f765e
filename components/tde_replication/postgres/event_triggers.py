"""Event triggers, which the tool's sessions have off: pg_tde knows by its own that a table is to be encrypted.

They run as the session's superuser, so each function must be a superuser's. (PostgreSQL documentation, *event_triggers*.)
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tde_replication.errors import Conflict, UserError
from tde_replication.postgres.session import Session

_FOREIGN = (
    "SELECT evtname::text, proowner::regrole::text FROM pg_event_trigger JOIN pg_proc AS p ON p.oid = evtfoid "
    "JOIN pg_roles AS o ON o.oid = proowner WHERE evtenabled <> 'D' AND NOT rolsuper ORDER BY 1 LIMIT 1"
)


@contextmanager
def event_triggers(server: Session) -> Iterator[None]:
    """Have them on inside. Raises `Conflict` where somebody else's function would run."""
    if found := server.row(_FOREIGN):
        raise Conflict(
            f"{server.purpose}: the function of event trigger {found[0]} is owned by {found[1]}, who is not a superuser, and "
            "would run as one: nothing was changed. Give the function to a superuser, or disable the trigger"
        )
    server.rows("SET event_triggers = on")
    try:
        yield
    finally:
        with suppress(UserError):  # in a session that has ended, as is told
            server.rows("SET event_triggers = off")
