"""Where stacks that were made before version 0.1 have their providers: their state names this module."""

from tde_replication.vault.resources import *  # noqa: F403
