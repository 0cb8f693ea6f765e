"""Which tables of a database a stack file declares encrypted, or in clear, and which are otherwise; found without waiting for a
lock of an ALTER TABLE."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql
from pydantic import BaseModel, ConfigDict, Field

from tde_replication.encryption_settings import Tables
from tde_replication.errors import NoExtension
from tde_replication.postgres.encryption_proof import SCHEMA_PREFIX
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.session import Session

ENCRYPTED, CLEAR = "tde_heap", "heap"
"""Access methods."""
LOCKED = (
    "EXISTS (SELECT FROM pg_locks WHERE relation = c.oid AND mode = 'AccessExclusiveLock' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
)
# Objects of initdb, as the tables of information_schema, have oids below 16384 (PostgreSQL documentation, *OID Assignment*).
TABLES = sql.SQL(
    """
SELECT oid::bigint, name, relkind::text, method, wanted, is_encrypted, of_tree,
  ARRAY(SELECT inhparent::bigint FROM pg_inherits WHERE inhrelid = found.oid)
FROM (
  SELECT c.oid, format('%I.%I', nspname, relname) AS name, relkind, coalesce(amname::text, '') AS method, {wanted} AS wanted,
    CASE WHEN amname = 'tde_heap' AND relkind <> 'p' AND {wanted} AND pg_relation_filenode(c.oid) IS NOT NULL AND NOT {locked}
      THEN {encrypted} ELSE coalesce(amname = 'tde_heap', false) END AS is_encrypted,
    EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)) AS of_tree
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace LEFT JOIN pg_am ON pg_am.oid = relam
  WHERE {ordinary} AND relkind IN ('r', 'm', 'p')
) AS found
WHERE of_tree OR (wanted IS NOT NULL AND is_encrypted IS DISTINCT FROM wanted) ORDER BY name
"""
)
SEQUENCES = sql.SQL(
    """
SELECT format('%I.%I', nspname, relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
WHERE {ordinary} AND relkind = 'S' AND {wanted} AND NOT EXISTS (
  SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND objsubid = 0
    AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i'))
ORDER BY 1
"""
)
ORDINARY = sql.SQL(
    "c.oid >= 16384 AND relpersistence <> 't' AND NOT starts_with(nspname::text, 'pg_') "
    "AND NOT starts_with(nspname::text, {proof})"
).format(proof=sql.Literal(SCHEMA_PREFIX))
SIZES = sql.SQL(
    """
SELECT c.oid::bigint, CASE WHEN {locked} THEN relpages::bigint * current_setting('block_size')::int
    ELSE coalesce(pg_total_relation_size(c.oid), 0) END,
  relpersistence = 'p',
  coalesce(pg_tablespace_location(coalesce(nullif(reltablespace, 0),
    (SELECT dattablespace FROM pg_database WHERE datname = current_database()))), '')
FROM pg_class AS c WHERE relkind IN ('r', 'm') AND c.oid = ANY({oids}::oid[])
"""
)


class Pattern(BaseModel):
    """What a stack file declares of the tables with such names (`encryption_settings.Tables`)."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_name: str = Field(alias="schema")
    table: str
    encrypted: bool


def patterns(declared: Iterable[Tables]) -> list[Pattern]:
    """As the stack file has them for one database."""
    return [Pattern(schema_name=one.schema_name, table=one.table, encrypted=one.encrypted) for one in declared]


@dataclass(frozen=True)
class Table:
    """A table, partition or materialized view; or a partitioned table (`kind` p), which has no storage, and only says how
    partitions are made."""

    oid: int
    name: str
    """Quoted as PostgreSQL quotes it, with its schema."""
    kind: str
    method: str
    """Access method; empty: a partitioned table without one."""
    wanted: bool | None
    """Whether it is to be encrypted; None: no pattern says so."""
    is_encrypted: bool
    of_tree: bool
    """Whether it is a parent or a child: a partition, or by inheritance."""
    parents: list[int]
    size: int = 0
    """Bytes, with indexes and TOAST."""
    logged: bool = False
    """Whether its rewrite writes WAL."""
    tablespace: str = ""
    """Its directory; empty: in the data directory."""


@dataclass(frozen=True)
class Survey:
    trees: list[list[Table]]
    """What is to be rewritten, the smallest first: each table by itself, but those of one tree together, in an order in which
    pg_tde takes them."""
    left: dict[str, str]
    """By name, why a table that is not as declared stays as it is."""
    sequences: list[str]
    """Sequences that no table owns, so that nothing encrypts them."""

    @property
    def tables(self) -> list[Table]:
        return [table for tree in self.trees for table in tree]

    @property
    def to_encrypt(self) -> list[Table]:
        return [table for table in self.tables if table.wanted]

    @property
    def to_decrypt(self) -> list[Table]:
        return [table for table in self.tables if not table.wanted]


def survey(server: Session, patterns: Sequence[Pattern]) -> Survey:
    """What `patterns` declare of the tables of the session's database, and is not so."""
    try:
        is_encrypted = PgTde(server).encrypted(sql.Identifier("c", "oid"))
    except NoExtension:
        is_encrypted = sql.SQL("false").format()
    wanted = decided(patterns)
    query = TABLES.format(wanted=wanted, encrypted=is_encrypted, locked=sql.SQL(LOCKED), ordinary=ORDINARY)
    known = {oid: Table(oid, *rest) for oid, *rest in server.shown(query)}
    pending = {oid: table for oid, table in known.items() if table.wanted not in {None, table.is_encrypted}}
    if not pending:
        return Survey([], {}, [])
    left = {
        table.name: f"its access method is {table.method}"
        for table in pending.values()
        if table.method not in {ENCRYPTED, CLEAR, ""}
    }
    with server.within():
        sizes = server.rows(SIZES.format(locked=sql.SQL(LOCKED), oids=sql.Literal(list(pending))))
    for oid, size, logged, tablespace in sizes:
        pending[oid] = replace(pending[oid], size=int(size), logged=logged, tablespace=tablespace)
    pending = {oid: table for oid, table in pending.items() if table.name not in left}
    trees = list(_trees(pending, known, left))
    free = server.rows(SEQUENCES.format(ordinary=ORDINARY, wanted=wanted))
    return Survey(trees, left, [name for (name,) in free] if any(table.wanted for table in pending.values()) else [])


def decided(patterns: Sequence[Pattern]) -> sql.Composable:
    """An expression of `nspname` and `relname`: whether a relation is to be encrypted by the first pattern that it matches."""
    if not patterns:
        return sql.SQL("NULL::bool")
    whens = [
        sql.SQL("WHEN nspname LIKE {} AND relname LIKE {} THEN {}").format(
            _like(one.schema_name), _like(one.table), sql.Literal(one.encrypted)
        )
        for one in patterns
    ]
    return sql.SQL("(CASE {} ELSE NULL::bool END)").format(sql.SQL(" ").join(whens))


def _like(glob: str) -> sql.Literal:
    wild = {"*": "%", "?": "_", "%": r"\%", "_": r"\_"}
    return sql.Literal("".join(wild.get(char, char) for char in glob))


def _trees(pending: Mapping[int, Table], known: Mapping[int, Table], left: dict[str, str]) -> Iterator[list[Table]]:
    """`pending` by tree. What cannot be rewritten goes to `left`.

    pg_tde alters no table whose storage, with that of all below it, is encrypted in part: so a parent comes first, while all of
    that is alike, or, without storage of its own, last (pg_tde, `alter_table_encryption_mix`).
    """
    tree = _Tree(known)
    found = dict[int, list[Table]]()
    for table in pending.values():
        found.setdefault(tree.root(table.oid), []).append(table)
    for tables in sorted(found.values(), key=lambda tables: (sum(one.size for one in tables), tables[0].name)):
        first, middle, last = [], [], []
        for table in tables:
            if not tree.children.get(table.oid):
                middle.append(table)
            elif len(tree.states(table.oid)) <= 1:
                first.append(table)
            elif table.kind == "p" and len(tree.states(table.oid, pending)) <= 1:
                last.append(table)
            else:
                left[table.name] = (
                    "tables below it are encrypted, and others are not: pg_tde alters no such table, until all of them are alike"
                )
        first.sort(key=lambda table: (tree.depth(table.oid), table.size))
        middle.sort(key=lambda table: (table.size, table.name))
        if ordered := [*first, *middle, *last]:
            yield ordered


class _Tree:
    """What is above and below a table."""

    def __init__(self, known: Mapping[int, Table]) -> None:
        self._known = known
        self.children = dict[int, list[int]]()
        for oid, table in known.items():
            for parent in table.parents:
                self.children.setdefault(parent, []).append(oid)

    def root(self, oid: int) -> int:
        """The same for all that are joined by parents, of whom a table may have several."""
        seen, todo = {oid}, [oid]
        while todo:
            one = todo.pop()
            table = self._known.get(one)
            beside = {*(table.parents if table else ()), *self.children.get(one, [])} - seen
            seen |= beside
            todo += beside
        return min(seen)

    def depth(self, oid: int) -> int:
        table = self._known.get(oid)
        return 1 + max(map(self.depth, table.parents), default=0) if table else 0

    def states(self, oid: int, changed: Mapping[int, Any] | None = None) -> set[bool]:
        """Whether the storage of it and of all below it is encrypted, also once what is `changed` is as it is wanted."""
        table = self._known.get(oid)
        own = set[bool]()
        if table and table.kind != "p":
            own = {table.method == ENCRYPTED}
            if changed and oid in changed:
                own = {bool(table.wanted)}
        return own.union(*(self.states(child, changed) for child in self.children.get(oid, [])))
