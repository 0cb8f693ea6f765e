"""A cluster on machines that this program makes: their addresses and host keys are outputs."""

import pulumi
from cloud import Machine  # type: ignore[import-not-found] # beside this file

from tde_replication import Cluster, EncryptedReplication, Server, Ssh, Vault

config = pulumi.Config()


def server(name: str) -> Server:
    machine = Machine(name, config.require("command"))
    return Server(
        host=Ssh(
            ssh=machine.address,
            host_keys=[machine.host_keys],
            user=config.get("user"),
            key=config.get("key"),
            packages=config.get("packages") or "percona",
        ),
    )


orders = EncryptedReplication(
    "orders",
    Cluster(
        encryption="off" if config.get_bool("unencrypted") else "required",
        disposable=True,  # for a trial: destroy removes the data
        vault=Vault(address_from_servers=config.get("vaultFromServers")),
        primary="db1",
        servers={name: server(name) for name in ("db1", "db2")},
    ),
)

pulumi.export("summary", orders.summary)
pulumi.export("primary", orders.primary)
