"""Two clusters in one stack: one by itself, one as a part of a larger component."""

import pulumi

from tde_replication import Cluster, EncryptedReplication, Server

config = pulumi.Config()
# Where PostgreSQL with pg_tde is on this machine; without, one that is found, and the cluster may be NOT ENCRYPTED.
binaries = config.get("binaries")


def cluster(primary: str, *standbys: str) -> Cluster:
    """Servers of this machine, for a trial: `disposable` lets destroy remove their data."""
    return Cluster(
        encryption="if-available",
        disposable=True,
        primary=primary,
        servers={name: Server(binaries=binaries) for name in (primary, *standbys)},
    )


class Shop(pulumi.ComponentResource):
    """An application with its database; the servers' resources are named after the cluster, and parented to it."""

    def __init__(self, name: str) -> None:
        super().__init__("example:index:Shop", name)
        self.database = EncryptedReplication(
            f"{name}-orders", cluster("db1", "db2"), pulumi.ResourceOptions(parent=self)
        )
        self.register_outputs({})


ledger = EncryptedReplication("ledger", cluster("db1", "db2", "db3"))
shop = Shop("shop")

pulumi.export("ledger", ledger.summary)
pulumi.export("orders", shop.database.summary)
pulumi.export("ledgerDsn", ledger.primary_dsn)
pulumi.export("ordersDsn", shop.database.primary_dsn)
