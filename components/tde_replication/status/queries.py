"""The query of the status for a server, which gives one JSON document in the names of `model`. (That for a database is in
`postgres.relations`.)"""

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
  'wal_segment_bytes', (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size'),
  'wal_block_bytes', current_setting('wal_block_size')::int,
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
