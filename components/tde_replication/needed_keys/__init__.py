"""Which principal keys open which data, read from what pg_tde keeps: ``python -m tde_replication.needed_keys``."""
