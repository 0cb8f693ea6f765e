"""What stands for all of a cluster, where its resources are registered later than the component."""

from tde_replication.reconciler import Unchanging


class CompleteCluster(Unchanging):
    """Made after everything else of its cluster, so that who depends on the component waits for that."""

    servers: list[str]

    @property
    def identity(self) -> str:
        return ", ".join(self.servers)

    def delete(self) -> None:
        """There is nothing behind it."""
