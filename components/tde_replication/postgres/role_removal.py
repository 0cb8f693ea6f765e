"""Dropping a role that others have granted something to.

PostgreSQL drops no role that has rights or owns something anywhere. Rights may have been given by anybody, and go with the role.
What it owns may be of value: it is named, and stays.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import LiteralString

from psycopg import sql

from tde_replication.errors import Conflict
from tde_replication.postgres.session import Session

DEPENDS: LiteralString = (
    "FROM pg_shdepend LEFT JOIN pg_database AS d ON d.oid = dbid WHERE refclassid = 'pg_authid'::regclass "
    "AND refobjid = (SELECT oid FROM pg_authid WHERE rolname = %s)"
)
# Default privileges and user mappings are of no use without their role, and DROP OWNED takes them away.
OWNS: LiteralString = " AND deptype = 'o' AND classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)"
DATABASES = "SELECT DISTINCT datname::text " + DEPENDS + " ORDER BY 1"
DATABASES_OF_OWNED = "SELECT DISTINCT datname::text " + DEPENDS + OWNS + " ORDER BY 1"
OWNED = (
    "SELECT pg_describe_object(classid, objid, objsubid) "
    + DEPENDS
    + OWNS
    + " AND (dbid = 0 OR datname = current_database()) ORDER BY 1"
)
SHOWN = 3


def drop_role(server: Session, role: str, in_database: Callable[[str], AbstractContextManager[Session]]) -> None:
    """Drop `role`, which may be gone already; `in_database` opens a session in another database of the server.

    Refuses, before anything is changed, where the role owns something.
    """
    owned = [name for (name,) in server.rows(DATABASES_OF_OWNED, [role])]
    if owned:
        raise Conflict(_owning(server, role, owned, in_database))
    name = sql.Identifier(role)
    if not server.row("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]):
        return
    # Nobody makes it own something from now on.
    server.rows(sql.SQL("ALTER ROLE {} NOLOGIN").format(name))
    server.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])
    for (database,) in server.rows(DATABASES, [role]):
        if database is None:  # rights on databases, parameters and the like go with any database's
            continue
        with in_database(database) as other, other.within():
            other.rows(sql.SQL("DROP OWNED BY {}").format(name))
    with server.within():
        server.rows(sql.SQL("DROP OWNED BY {}").format(name))
        server.rows(sql.SQL("DROP ROLE {}").format(name))


def _owning(
    server: Session,
    role: str,
    databases: list[str | None],
    in_database: Callable[[str], AbstractContextManager[Session]],
) -> str:
    """What the role owns in the first of `databases` (None: a database, a tablespace), and what to do about it."""
    database = databases[0] or server.connection.info.dbname
    with in_database(database) as there:
        objects = [str(thing) for (thing,) in there.rows(OWNED, [role])]
    shown = ", ".join(objects[:SHOWN]) + (" and more" if len(objects) > SHOWN else "")
    return (
        f"{server.purpose}: the role owns {shown} (seen from database {database}), and is not dropped: nothing was changed. Give "
        f"it to another role (REASSIGN OWNED BY {sql.Identifier(role).as_string()} TO postgres, in that database), or drop it, "
        "and run this again"
    )
