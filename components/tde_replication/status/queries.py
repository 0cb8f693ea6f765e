"""The queries of the status: one for a server, one for each database. Both give one JSON document in the names of `model`.

Neither waits for a lock that an ALTER TABLE holds: sizes come from the file system, and a locked table is not opened.
"""

from psycopg import sql

from tde_replication.postgres.pg_tde import PgTde

TABLES_SHOWN = 20
"""Of the tables in clear, the largest are named."""

MONITOR, SUPERUSER = "SET ROLE pg_monitor", "RESET ROLE"
"""The first is enough for `INSTANCE`. Sizes of files, pg_tde's keys and a backup's label are for a superuser alone."""
INSTANCE = """
SELECT json_build_object(
  'version', current_setting('server_version'),
  'version_number', current_setting('server_version_num')::int,
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'in_recovery', recovering,
  'timeline', CASE
    WHEN recovering THEN coalesce(
      (SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()))
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END,
  'uptime', extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()),
  'lsn_bytes', lsn - '0/0'::pg_lsn,
  'senders', (SELECT coalesce(json_agg(json_build_object(
      'application_name', application_name,
      'client', host(client_addr),
      'slot', slot_name,
      'state', state,
      'sync_state', sync_state,
      'write', json_build_object('bytes', greatest(lsn - write_lsn, 0), 'seconds', extract(epoch FROM write_lag)),
      'flush', json_build_object('bytes', greatest(lsn - flush_lsn, 0), 'seconds', extract(epoch FROM flush_lag)),
      'replay', json_build_object('bytes', greatest(lsn - replay_lsn, 0), 'seconds', extract(epoch FROM replay_lag))
    ) ORDER BY application_name, sender.pid), '[]')
    FROM pg_stat_replication AS sender LEFT JOIN pg_replication_slots ON active_pid = sender.pid),
  'slots', (SELECT coalesce(json_agg(json_build_object(
      'name', slot_name,
      'active', active,
      'wal_status', wal_status,
      'safe_wal_bytes', safe_wal_size,
      'held_back_bytes', greatest(lsn - restart_lsn, 0),
      'invalidation_reason', invalidation_reason,
      'synced', synced
    ) ORDER BY slot_name), '[]')
    FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary),
  'receiver', (SELECT json_build_object('status', status, 'host', sender_host, 'port', sender_port, 'slot', slot_name)
    FROM pg_stat_wal_receiver),
  'replay', CASE WHEN recovering THEN json_build_object(
      'paused', pg_get_wal_replay_pause_state(),
      'delay', extract(epoch FROM current_setting('recovery_min_apply_delay')::interval),
      'last_transaction_age', extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())) END,
  'archiver', (SELECT json_build_object(
      'mode', current_setting('archive_mode'),
      'archived', archived_count,
      'failed', failed_count,
      'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
      'last_archived_age', extract(epoch FROM clock_timestamp() - last_archived_time),
      'last_failed_wal', last_failed_wal) FROM pg_stat_archiver),
  'synchronous_standby_names', current_setting('synchronous_standby_names'),
  'checksums', current_setting('data_checksums') = 'on',
  'checksum_failures', (SELECT sum(checksum_failures)::bigint FROM pg_stat_database),
  'last_backup', (SELECT json_build_object(
      'file', name,
      'age', extract(epoch FROM clock_timestamp() - modification))
    FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}[.][0-9A-F]{8}[.]backup$' ORDER BY modification DESC, name DESC LIMIT 1),
  'tde_loaded', EXISTS (SELECT FROM pg_settings WHERE name = 'pg_tde.wal_encrypt'),
  'wal_encrypted', coalesce((SELECT setting = 'on' FROM pg_settings WHERE name = 'pg_tde.wal_encrypt'), false),
  'cipher', (SELECT setting FROM pg_settings WHERE name = 'pg_tde.cipher'),
  'databases', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]')
    FROM pg_database WHERE datallowconn AND NOT datistemplate),
  'closed_databases', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]')
    FROM pg_database WHERE NOT datallowconn AND NOT datistemplate)
)::text
FROM (SELECT recovering, CASE
    WHEN recovering THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    ELSE pg_current_wal_lsn() END AS lsn
  FROM (SELECT pg_is_in_recovery()) AS asked(recovering)) AS here
"""
LABEL = "SELECT substring(pg_read_file('pg_wal/' || %s, 0, 4000, true) FROM '\nLABEL: ([^\n]*)')"
"""Of the backup whose history file is named."""

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
  SELECT owned.oid, root, namespace.nspname, tables.relname, tables.relkind, coalesce(bytes, 0) AS bytes,
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
  SELECT nspname, relname, sum(bytes) AS bytes FROM judged
  WHERE NOT catalog AND relkind IN ('r', 'm')
  GROUP BY root, nspname, relname HAVING bool_or(oid = root AND NOT encrypted))
SELECT json_build_object(
  'name', current_database(),
  'total_bytes', (SELECT coalesce(sum(bytes), 0) FROM files),
  'encrypted_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE encrypted), 0) FROM judged),
  'clear_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE NOT encrypted AND NOT catalog), 0) FROM judged),
  'catalog_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE catalog), 0) FROM judged),
  'unknown_bytes', (SELECT coalesce(sum(bytes) FILTER (WHERE encrypted IS NULL), 0) FROM judged),
  'clear_table_count', (SELECT count(*) FROM clear),
  'clear_tables', (SELECT coalesce(json_agg(json_build_object('name', format('%I.%I', nspname, relname), 'bytes', bytes)
      ORDER BY bytes DESC, nspname, relname), '[]')
    FROM (SELECT * FROM clear ORDER BY bytes DESC, nspname, relname LIMIT {shown}) AS largest),
  'extension', (SELECT extversion FROM pg_extension WHERE extname = 'pg_tde'),
  'key', {key}
)::text
"""
)
KEY = sql.SQL(
    "(SELECT json_build_object('scope', current_database(), 'name', key_name, 'provider', provider_name, "
    "'since', key_creation_time) FROM {} WHERE key_name IS NOT NULL)"
)


def of_database(tde: PgTde | None) -> sql.Composed:
    """The query for a database, with the functions of its pg_tde."""
    return DATABASE.format(
        shown=sql.Literal(TABLES_SHOWN),
        encrypted=tde.encrypted(sql.Identifier("owned", "oid")) if tde else sql.SQL("false"),
        key=KEY.format(tde.table("pg_tde_key_info")) if tde else sql.NULL,
    )
