"""One stack file, one cluster: makes the component of its settings, and exports what people want to see."""

import os
import signal
import sys
import threading

import pulumi

from tde_replication import EncryptedReplication, UserError

TOLD = 32
"""The exit status to which Pulumi's Python host adds no error of its own: the program has told what is wrong."""

if threading.current_thread() is threading.main_thread():  # else a language host runs it as a part of itself
    # The engine tells a person of Ctrl-C. Python would add two pages of traceback, and wait for what it has asked of machines.
    signal.signal(signal.SIGINT, lambda *_: os._exit(TOLD))

stack = pulumi.get_stack()

try:
    replication = EncryptedReplication(
        stack, pulumi.Config().get("cluster") or "{}", source=f"stacks/Pulumi.{stack}.yaml"
    )
except UserError as problem:
    pulumi.log.error(str(problem))
    sys.exit(TOLD)

pulumi.export("primary", replication.primary)
pulumi.export("standbys", replication.standbys)
pulumi.export("primaryDsn", replication.primary_dsn)
pulumi.export("standbyDsns", replication.standby_dsns)
pulumi.export("readWriteDsn", replication.read_write_dsn)
pulumi.export("readOnlyDsn", replication.read_only_dsn)
pulumi.export("vault", replication.vault)
pulumi.export("encryption", replication.encryption)
pulumi.export("expires", replication.expires)
pulumi.export("summary", replication.summary)
