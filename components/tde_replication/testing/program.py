"""The Pulumi program of a test cluster: `temporary` puts a `__main__.py` that runs it beside the stack file."""

import sys

import pulumi

from tde_replication import EncryptedReplication, UserError

TOLD = 32
"""The exit status to which Pulumi's Python host adds no error of its own: the program has told what is wrong."""
OUTPUTS = ("primary_dsn", "standby_dsns", "read_write_dsn", "read_only_dsn", "vault", "encryption", "summary")


def main() -> None:
    try:
        made = EncryptedReplication(pulumi.get_stack(), pulumi.Config().require("cluster"), source="the test cluster")
    except UserError as problem:
        pulumi.log.error(str(problem))
        sys.exit(TOLD)
    for name in OUTPUTS:
        pulumi.export(name, getattr(made, name))
