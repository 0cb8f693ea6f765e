"""The data directory of a server that was here before the stack, whichever part it has: never made, moved, cloned or removed."""

from collections.abc import Iterable
from typing import ClassVar, Self

from tde_replication.errors import Conflict
from tde_replication.postgres.data_directory import DataDirectory
from tde_replication.postgres.marker import of_another_stack
from tde_replication.postgres.server_directory import ServerDirectory
from tde_replication.records import Cost


class AdoptedDirectory(ServerDirectory):
    """It is the primary's at first; after a switchover, it follows another server as any standby's does. Where it cannot follow,
    nothing is changed: what is in it may be nowhere else."""

    origin: str = "adopted"

    replaced_by: ClassVar[frozenset[str]] = DataDirectory.replaced_by

    @property
    def identity(self) -> str:
        return f"{self.system_identifier} adopted"

    def refusal(self, live: Self) -> str | None:
        if live.stack != self.stack and (former := of_another_stack(live.stack, self.stack)):
            return f"the cluster in {live.data_directory} {former}"
        if live.origin != self.origin:
            return (
                f"cluster.servers.{self.name}.adopt: the server in {live.data_directory} was made by this stack: leave adopt "
                "out. With disposable: false its data outlives the stack"
            )
        if self.role == "primary":
            return self._wrong_cluster(live.holds)
        if live.follows == self.follows:
            return None
        return (
            f"{self.name} cannot follow the primary ({live.follows}), and it was here before the stack, which neither clones it "
            f"nor removes its data: nothing is changed. Find out whether what it alone has is needed. Then stop it, move "
            f"{self.data_directory} away and leave adopt out of its settings: `up` clones it as a server of the stack"
        )

    def replacing(self, old: Self) -> set[str]:
        return self.changed(old) & self.replaced_by

    def costs(self, live: Self | None) -> Iterable[Cost]:
        """Nothing is copied."""
        del live
        return ()

    def create(self) -> Self:
        if not self.machine.listing(self.path):
            raise Conflict(
                f"{self.data_directory} is empty: there is no server to adopt. Leave adopt out to have one created"
            )
        if self._is_ours(self._marker()):
            raise Conflict(f"{self.data_directory} was made by this stack: there is nothing to adopt. Leave adopt out")
        return self.replace(system_identifier=self.control().system_identifier)

    def update(self, live: Self) -> Self:
        del live
        return self

    def delete(self) -> None:
        """It is not this stack's to take away."""
