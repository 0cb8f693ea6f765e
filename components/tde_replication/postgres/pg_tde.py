"""Calls of pg_tde's functions: by the schema that the extension is in, and none that is not the extension's own.

The schema is most often `public`, where the database's owner may make functions too: one of the same name with other arguments,
or the very same one once the owner has renamed the schema or dropped it with the extension in it. So each function is looked up
among the extension's members, is called with the exact types of its arguments, and runs only if its name still means that
member when the server reads the statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from tde_replication.errors import Conflict, NoExtension
from tde_replication.postgres.session import Session

PROVIDERS = "pg_tde_list_all_global_key_providers"
SERVER_KEY = "pg_tde_server_key_info"
DEFAULT_KEY = "pg_tde_default_key_info"
DATABASE_KEY = "pg_tde_key_info"
MEMBERS = (
    "SELECT proname, oidvectortypes(proargtypes), nspname, p.oid::bigint, rolsuper FROM pg_extension AS e "
    "JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid "
    "AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e' "
    "JOIN pg_proc AS p ON p.oid = d.objid JOIN pg_namespace AS n ON n.oid = pronamespace JOIN pg_roles AS r ON r.oid = proowner "
    "WHERE extname = 'pg_tde'"
)


@dataclass(frozen=True)
class _Function:
    schema: str
    name: str
    types: str
    """As PostgreSQL writes them: "text, text"."""
    oid: int

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def unchanged(self) -> sql.Composed:
        """A constant for the server: where it is false, the function does not run."""
        signature = sql.Literal(f"{self.identifier.as_string()}({self.types})")
        return sql.SQL("{}::regprocedure = {}::oid").format(signature, sql.Literal(self.oid))


def is_loaded(server: Session) -> bool:
    """Whether the server has loaded pg_tde's library: a session in which it has not is ended by most calls."""
    return server.row("SELECT 1 FROM pg_settings WHERE name = 'pg_tde.wal_encrypt'") is not None


class PgTde:
    """The functions of pg_tde in the session's database."""

    def __init__(self, server: Session) -> None:
        """Raises `NoExtension`: the extension's resource answers for that."""
        self.server = server
        rows = server.rows(MEMBERS)
        if not rows:
            database = server.connection.info.dbname
            raise NoExtension(f"{server.purpose}: database {database} has no extension pg_tde")
        self._members = {
            (name, types): _Function(schema, name, types, oid)
            for name, types, schema, oid, owned_by_superuser in rows
            if owned_by_superuser
        }

    def table(self, name: str) -> sql.Composed:
        """What a function without arguments returns, to select from."""
        function = self._function(name, "")
        return sql.SQL("(SELECT * FROM {}() WHERE {}) AS {}").format(
            function.identifier, function.unchanged, sql.Identifier(name)
        )

    def version(self) -> str:
        """What the library that the server has loaded says of itself."""
        found = self.server.row(sql.SQL("SELECT * FROM {}").format(self.table("pg_tde_version")))
        if found is None:
            raise self._changed("pg_tde_version")
        return str(found[0])

    def call(self, name: str, arguments: Sequence[str | None] = ()) -> None:
        """Call a function whose arguments are texts, for what it does. It may take long: some talk to a Vault."""
        function = self._function(name, ", ".join(["text"] * len(arguments)))
        texts = sql.SQL(", ").join([sql.SQL("%s::text")] * len(arguments))
        query = sql.SQL("SELECT {}({}) WHERE {}").format(function.identifier, texts, function.unchanged)
        with self.server.within():
            if not self.server.rows(query, arguments):
                raise self._changed(name)

    def encrypted(self, relation: sql.Composable) -> sql.Composed:
        """An expression of whether the files of a relation (a column with its oid) are encrypted; NULL where the function was
        changed meanwhile, and did not run."""
        function = self._function("pg_tde_is_encrypted", "regclass")
        return sql.SQL("CASE WHEN {} THEN {}({}::regclass) END").format(
            function.unchanged, function.identifier, relation
        )

    def is_encrypted(self, relation: int) -> bool:
        """Whether the files of a relation (its oid) are encrypted."""
        function = self._function("pg_tde_is_encrypted", "regclass")
        query = sql.SQL("SELECT {}({}::oid::regclass) WHERE {}")
        found: Any = self.server.row(query.format(function.identifier, sql.Literal(relation), function.unchanged))
        if found is None:
            raise self._changed(function.name)
        return bool(found[0])

    def _function(self, name: str, types: str) -> _Function:
        found = self._members.get((name, types))
        if found is None:
            raise Conflict(
                f"{self.server.purpose}: {name}({types}) is not a function of the extension pg_tde in database "
                f"{self.server.connection.info.dbname}, owned by a superuser: nothing was called. Find out who changed the "
                "extension, or update it (ALTER EXTENSION pg_tde UPDATE)"
            )
        return found

    def _changed(self, name: str) -> Conflict:
        return Conflict(
            f"{self.server.purpose}: {name} has become another function while it was called: it was not run. Find out who "
            "changes the schema of the extension pg_tde"
        )
