"""The attacker's kit: who may create in a database makes a trap of every name that the superuser's statements use there.

An overload with exactly the types of each function and operator, in schemas that a careless search path would find first (or that
come first in one that the owner has set); domains and views in place of types and catalogs. Each says in the server's log that it
ran: on a standby too, and whatever becomes of the transaction.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg import sql

from tde_replication.hosts.superuser import Connection
from tests.providers.servers import Node

SAYS = "the trap ran"
RAN = f"LOG:  {SAYS}"
"""In the log; what was run to make a trap may be there too."""
SYNTAX = {
    *(
        "array",
        "any",
        "all",
        "as",
        "and",
        "coalesce",
        "exists",
        "extract",
        "from",
        "format",
        "greatest",
        "in",
        "like",
        "not",
    ),
    *("nullif", "on", "select", "trim", "values", "when", "with", "where", "row", "using", "cast"),
}
"""Words before a parenthesis that are PostgreSQL's grammar, and no function that somebody could make."""
CONCRETE = {
    "anyarray": "text[]", "anyelement": "text", "anynonarray": "text", '"any"': "text", "anycompatible": "text",
    "anycompatiblearray": "text[]", "anycompatiblenonarray": "text",
}  # fmt: skip
OPTIONS = (
    "-c search_path=pg_catalog -c local_preload_libraries= -c default_transaction_read_only=off -c statement_timeout=0 "
    "-c role=none"
)
"""Against one's own traps and settings."""
OPERATORS = re.compile(r"(?<![\w'])(->>|\|\||<=|>=|<>|!~|~|=|<|>|\+|-|\*|/)(?![\w']*\*/)")


@dataclass(frozen=True)
class Names:
    """What statements name without a schema."""

    functions: frozenset[str]
    operators: frozenset[str]
    types: frozenset[str]
    relations: frozenset[str]


def names_in(statements: Iterable[str]) -> Names:
    text = "\n".join(re.sub(r"'(?:[^']|'')*'", "''", statement) for statement in statements)
    functions = {name.lower() for name in re.findall(r"(?<![.\"\w])([a-zA-Z_][a-zA-Z0-9_]*)\(", text)}
    functions |= set(re.findall(r"\.\"(pg_tde_\w+)\"\(", text))
    return Names(
        frozenset(functions - SYNTAX),
        frozenset(OPERATORS.findall(text)) | {"=", "~~", "!~~"},  # IN, LIKE, NOT LIKE
        frozenset(re.findall(r"::([a-z_]+)", text)),
        frozenset(re.findall(r"(?:FROM|JOIN)\s+(pg_[a-z_]+)(?!\w|\()", text)),
    )


@contextmanager
def recorded(monkeypatch: Any) -> Iterator[list[str]]:
    """The statements that are run by connections of the project's own."""
    statements: list[str] = []
    run = Connection.execute

    def execute(self: Connection, query: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(query, bytes):  # as tests have it
            statements.append(query if isinstance(query, str) else query.as_string(None))
        return run(self, query, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "execute", execute)
        yield statements


class Attacker:
    """A role without any attribute, in one database of a server."""

    def __init__(self, node: Node, database: str) -> None:
        self._connection = psycopg.connect(
            host="/tmp", port=node.port, user="postgres", dbname=database, autocommit=True, options=OPTIONS
        )
        self.planted: dict[str, int] = {}

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

    def tries(self, *statements: sql.Composable) -> bool:
        """One after the other, all or none."""
        try:
            with self._connection.transaction():
                self.does(*statements)
        except psycopg.Error:
            return False
        return True

    def plants(self, schema: str, names: Names) -> None:
        self._functions(schema, names.functions)
        self._operators(schema, names.operators)
        place = sql.Identifier(schema)
        function = sql.SQL("CREATE FUNCTION {}.trapped(text) RETURNS boolean LANGUAGE plpgsql AS {}")
        self.tries(function.format(place, _body("a domain or view", "RETURN true;")))
        for name in names.types:
            domain = sql.SQL("CREATE DOMAIN {}.{} AS pg_catalog.{} CHECK ({}.trapped(VALUE::pg_catalog.text))")
            self._count(
                name, self.tries(domain.format(place, sql.Identifier(name), sql.Identifier(_base(name)), place))
            )
        for name in names.relations:
            view = sql.SQL("CREATE VIEW {}.{} AS SELECT * FROM pg_catalog.{} WHERE {}.trapped('')")
            self._count(name, self.tries(view.format(place, *[sql.Identifier(name)] * 2, place)))

    def _count(self, name: str, made: bool) -> None:  # noqa: FBT001
        self.planted[name] = self.planted.get(name, 0) + made

    def _functions(self, schema: str, names: Iterable[str]) -> None:
        query = sql.SQL(
            "SELECT proname, ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) WITH ORDINALITY AS a (t, n) ORDER BY n), "
            "ARRAY(SELECT format('OUT %I %s', name, format_type(t, NULL)) "
            "FROM unnest(proargnames, proallargtypes, proargmodes) WITH ORDINALITY AS a (name, t, mode, n) "
            "WHERE mode IN ('o', 't') ORDER BY n), "
            "format_type(prorettype, NULL), proretset FROM pg_proc WHERE proname = ANY({}) AND prokind <> 'p'"
        )
        for name, types, outputs, result, returns_set in self.rows(query.format(sql.Literal(sorted(names)))):
            self._count(name, self._plant(schema, name, types, outputs, result, returns_set=returns_set))
            for other in (
                "varchar",
                "name",
            ):  # where the very same is there already: what an unknown literal might prefer
                others = [other if t == "text" else t for t in types]
                self._plant(schema, name, others, outputs, result, returns_set=returns_set)

    def _plant(
        self, schema: str, name: str, types: list[str], outputs: list[str], result: str, *, returns_set: bool
    ) -> bool:
        arguments = ", ".join([*(CONCRETE.get(one, one) for one in types), *outputs])
        kind = CONCRETE.get(result, result)
        ends = "RETURN;" if returns_set or outputs or kind == "void" else "RETURN NULL;"
        return self.tries(
            sql.SQL("CREATE FUNCTION {}({}) RETURNS {} LANGUAGE plpgsql AS {}").format(
                sql.Identifier(schema, name),
                sql.SQL(arguments),
                sql.SQL(("SETOF " if returns_set else "") + kind),
                _body(name, ends),
            )
        )

    def _operators(self, schema: str, names: Iterable[str]) -> None:
        query = sql.SQL(
            "SELECT oprname, format_type(oprleft, NULL), format_type(oprright, NULL), format_type(oprresult, NULL) "
            "FROM pg_operator WHERE oprname = ANY({}) AND oprleft <> 0 AND oprnamespace = 'pg_catalog'::regnamespace"
        )
        for number, (name, *types) in enumerate(self.rows(query.format(sql.Literal(sorted(names))))):
            left, right, result = (sql.SQL(CONCRETE.get(one, one)) for one in types)
            function = sql.Identifier(schema, f"trap_{number}")
            made = self.tries(
                sql.SQL("CREATE FUNCTION {}({}, {}) RETURNS {} LANGUAGE plpgsql AS {}").format(
                    function, left, right, result, _body(name, "RETURN NULL;")
                ),
                sql.SQL("CREATE OPERATOR {}.{} (FUNCTION = {}, LEFTARG = {}, RIGHTARG = {})").format(
                    sql.Identifier(schema),
                    sql.SQL(name),
                    function,
                    left,
                    right,
                ),
            )
            self._count(name, made)


def _body(name: str, ends: str) -> sql.Literal:
    return sql.Literal(f"BEGIN RAISE LOG '{SAYS}: % as %', {sql.Literal(name).as_string()}, current_user; {ends} END")


def _base(name: str) -> str:
    return {"boolean": "bool", "bigint": "int8"}.get(name, name)
