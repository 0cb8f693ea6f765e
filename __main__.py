"""One stack file, one cluster: reads the settings, makes the component, exports what people want to see."""

import sys

import pulumi
from pulumi.runtime import is_config_secret

from components import stack_file
from components.errors import Problem
from components.hosts import sudo
from components.replication import EncryptedReplication
from components.vault.address import VaultAddress

TOLD = 32
"""The exit status to which Pulumi's Python host adds no error of its own: the program has told what is wrong."""

stack = pulumi.get_stack()
config = pulumi.Config()
sudo.configure(config.get(sudo.SETTING))

try:
    besides = VaultAddress.missing() + sudo.mistakes(secret=is_config_secret(config.full_key(sudo.SETTING)))
    cluster = stack_file.parse(f"stacks/Pulumi.{stack}.yaml", config.get("cluster") or "{}", besides)
    replication = EncryptedReplication(stack, cluster, VaultAddress.configured(cluster.vault.ca))
except Problem as problem:
    pulumi.log.error(str(problem))
    sys.exit(TOLD)

pulumi.export("primary", replication.primary)
pulumi.export("standbys", replication.standbys)
pulumi.export("primaryDsn", replication.primary_dsn)
pulumi.export("standbyDsns", replication.standby_dsns)
pulumi.export("vault", replication.vault)
pulumi.export("encryption", replication.encryption)
pulumi.export("summary", replication.summary)
