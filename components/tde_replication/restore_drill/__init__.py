"""Whether the newest backup can be restored and read: ``python -m tde_replication.restore_drill``."""
