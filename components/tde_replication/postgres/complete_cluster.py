"""What stands for all of a cluster, where its resources are registered later than the component."""

from typing import Self

from tde_replication.reconciler import Resource


class CompleteCluster(Resource):
    """Made after everything else of its cluster, so that who depends on the component waits for that."""

    servers: list[str]

    @property
    def identity(self) -> str:
        return ", ".join(self.servers)

    def read(self) -> Self:
        return self

    def create(self) -> Self:
        return self

    def update(self, live: Self) -> Self:
        del live
        return self

    def delete(self) -> None:
        """There is nothing behind it."""
