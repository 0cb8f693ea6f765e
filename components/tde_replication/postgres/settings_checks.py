"""What speaks against new settings of a running server: asked for the preview, without changing anything."""

from collections.abc import Collection

from tde_replication.errors import UserError
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.session import session
from tde_replication.postgres.starting import wrong_file
from tde_replication.unasked import could_not_ask

NEEDED = {"wal_level": ("minimal", "replica"), "max_wal_senders": ("0", "10"), "max_replication_slots": ("0", "10")}
"""Parameters with the value that allows no standby, and the default, which does."""


def unchangeable(server: OnServer, name: str, *, restarts: bool) -> str | None:
    """Why a server would take no new value, or could not start again for it. None too where it cannot be asked, which is told."""
    try:
        with session(server, f"server {name}") as running:
            if running.value("SELECT current_setting('allow_alter_system', true)") == "off":
                return (
                    f"server {name} refuses ALTER SYSTEM, by which the stack sets parameters: set allow_alter_system = on in its "
                    "postgresql.conf, and reload it"
                )
            return wrong_file(running, name) if restarts else None
    except UserError as why:
        could_not_ask(f"whether server {name} takes new settings", why)
        return None


def without_standbys(server: OnServer, name: str, settings: Collection[str]) -> str | None:
    """What keeps a server that was here before the stack from having a standby, unless it is among its `settings`."""
    try:
        with session(server, f"server {name}") as running:
            rows = running.rows("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(NEEDED)])
            found: dict[str, str] = dict(rows)
    except UserError as why:
        could_not_ask(f"whether server {name} can have a standby", why)
        return None
    wrong = [
        f"{parameter} = {found[parameter]} (set it to {needed} in its settings)"
        for parameter, (none, needed) in NEEDED.items()
        if parameter not in settings and found.get(parameter) == none
    ]
    return f"server {name} can have no standby with {', '.join(wrong)}" if wrong else None
