"""What of a database is encrypted: one query, which gives one JSON document in the names of the status's `Database`.

It waits for no lock that an ALTER TABLE holds: sizes come from the file system, and a locked table is not opened.
"""

import json
from collections.abc import Sequence

from psycopg import sql

from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.session import Session
from tde_replication.postgres.tables import Pattern, decided

TABLES_SHOWN = 20
"""Of the tables in clear, the largest are named."""
SAMPLES = 3
"""As many of the largest encrypted tables are looked at on disk."""

# A relation belongs to a table: its indexes, its TOAST table and that one's index, the sequences that it owns. The access method
# of the table says whether all of these should be encrypted; pg_tde says of each whether it is. A sequence that no table owns is
# in clear, and so are large objects, where there are any. Temporary tables are left out.
DATABASE = sql.SQL(
    """
WITH stored AS (
  SELECT oid, relname, relnamespace, relkind, relam, pg_relation_filepath(oid) AS path FROM pg_class
  WHERE relkind IN ('r', 'm', 't', 'i', 'S') AND relpersistence <> 't'),
directories AS (
  SELECT DISTINCT regexp_replace(path, '/[^/]*$', '') AS directory FROM stored WHERE path NOT LIKE 'global/%'),
files AS (
  SELECT directory || '/' || regexp_replace(name, '(_(fsm|vm|init))?([.][0-9]+)?$', '') AS path,
    (pg_stat_file(directory || '/' || name, true)).size AS bytes
  FROM directories, pg_ls_dir(directory, true, false) AS name),
sizes AS (SELECT path, sum(bytes) AS bytes FROM files GROUP BY path),
parts AS (
  SELECT stored.oid, path, relkind AS kind, coalesce(indrelid, stored.oid) AS heap FROM stored
  LEFT JOIN pg_index ON indexrelid = stored.oid WHERE path NOT LIKE 'global/%'),
owned AS (
  SELECT parts.oid, path, coalesce(toasted.oid, sequence.refobjid, heap) AS root FROM parts
  LEFT JOIN pg_class AS toasted ON toasted.reltoastrelid = heap
  LEFT JOIN pg_depend AS sequence ON kind = 'S' AND classid = 'pg_class'::regclass AND objid = parts.oid AND objsubid = 0
    AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')),
judged AS (
  SELECT owned.oid, path, root, namespace.nspname, tables.relname, tables.relkind, coalesce(bytes, 0) AS bytes,
    namespace.nspname IN ('pg_catalog', 'information_schema') AND NOT (root = 'pg_largeobject'::regclass AND
      (SELECT bytes FROM sizes WHERE path = pg_relation_filepath('pg_largeobject'::regclass)) > 0) AS catalog,
    CASE WHEN amname IS DISTINCT FROM 'tde_heap' THEN false
      WHEN EXISTS (SELECT FROM pg_locks WHERE relation = owned.oid AND mode = 'AccessExclusiveLock'
        AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())) THEN NULL
      ELSE {encrypted} END AS encrypted
  FROM owned LEFT JOIN sizes USING (path)
  JOIN pg_class AS tables ON tables.oid = root JOIN pg_namespace AS namespace ON namespace.oid = tables.relnamespace
  LEFT JOIN pg_am ON pg_am.oid = tables.relam),
clear AS (
  SELECT nspname, relname, sum(bytes) AS bytes,
    NOT starts_with(nspname::text, 'pg_') AND {decided} IS NOT DISTINCT FROM false AS declared FROM judged
  WHERE NOT catalog AND relkind IN ('r', 'm')
  GROUP BY root, nspname, relname HAVING bool_or(oid = root AND NOT encrypted))
SELECT json_build_object(
  'name', current_database(),
  'total_bytes', (SELECT coalesce(sum(bytes), 0) FROM files),
  'encrypted_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE encrypted), 0) FROM judged),
  'clear_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE NOT encrypted AND NOT catalog), 0) FROM judged),
  'catalog_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE catalog), 0) FROM judged),
  'unknown_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE encrypted IS NULL), 0) FROM judged),
  'free_sequences', (SELECT count(*) FROM judged WHERE oid = root AND relkind = 'S' AND NOT catalog),
  'clear_table_count', (SELECT count(*) FROM clear WHERE NOT declared),
  'declared_clear_count', (SELECT count(*) FROM clear WHERE declared),
  'clear_tables', (SELECT coalesce(json_agg(json_build_object('name', format('%I.%I', nspname, relname), 'bytes', bytes)
      ORDER BY bytes DESC, nspname, relname), '[]')
    FROM (SELECT * FROM clear WHERE NOT declared ORDER BY bytes DESC, nspname, relname LIMIT {shown}) AS largest),
  'samples', (SELECT coalesce(json_agg(json_build_object('name', format('%I.%I', nspname, relname), 'path', path,
      'bytes', (pg_stat_file(path, true)).size, 'block', current_setting('block_size')::int) ORDER BY bytes DESC, path), '[]')
    FROM (SELECT * FROM judged WHERE oid = root AND encrypted ORDER BY bytes DESC, path LIMIT {samples}) AS largest
    WHERE (pg_stat_file(path, true)).size > 0),
  'extension', (SELECT extversion FROM pg_extension WHERE extname = 'pg_tde'),
  'key', {key}
)::text
"""
)
KEY = sql.SQL(
    "(SELECT json_build_object('scope', current_database(), 'name', key_name, 'provider', provider_name, "
    "'since', key_creation_time) FROM {} WHERE key_name IS NOT NULL)"
)


def of_database(tde: PgTde | None, patterns: Sequence[Pattern]) -> sql.Composed:
    """The query for a database, with the functions of its pg_tde (None: it has none, and nothing is encrypted). `patterns`: what
    is declared of its tables."""
    return _of_database(tde, TABLES_SHOWN, KEY.format(tde.table("pg_tde_key_info")) if tde else sql.NULL, patterns)


def tables_in_clear(server: Session, most: int, patterns: Sequence[Pattern]) -> list[str]:
    """Tables and materialized views of the session's database whose files are in clear, by their names as SQL has them: with
    system catalogs left out, but for large objects, and those that `patterns` declare so. For more than `most` of them, their
    number alone.

    Raises `NoExtension`.
    """
    with server.within():
        found = json.loads(server.value(_of_database(PgTde(server), most, sql.NULL, patterns)))
    if found["clear_table_count"] > most:
        return [f"{found['clear_table_count']} tables"]
    return sorted(table["name"] for table in found["clear_tables"])


def _of_database(tde: PgTde | None, shown: int, key: sql.Composable, patterns: Sequence[Pattern]) -> sql.Composed:
    return DATABASE.format(
        shown=sql.Literal(shown),
        samples=sql.Literal(SAMPLES),
        encrypted=tde.encrypted(sql.Identifier("owned", "oid")) if tde else sql.SQL("false"),
        key=key,
        decided=decided(patterns),
    )
