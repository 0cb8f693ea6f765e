"""What all dynamic resources in the Vault have in common."""

from abc import abstractmethod
from typing import ClassVar, Self

from tde_replication.errors import UserError
from tde_replication.reconciler import Resource
from tde_replication.vault.caller import client_for, first_to_fail
from tde_replication.vault.client import Client


class InVault(Resource):
    """A resource that lies in the Vault."""

    address: str
    ca: str = ""
    namespace: str = ""

    replaced_by: ClassVar[frozenset[str]] = frozenset({"namespace"})
    not_compared: ClassVar[frozenset[str]] = frozenset({"address", "ca"})

    @property
    def client(self) -> Client:
        return client_for(self.address, self.ca, self.namespace)

    @abstractmethod
    def live(self) -> Self | None:
        """What `read` returns, while the Vault answers."""

    def read(self) -> Self | None:
        """Fail where the Vault cannot be asked: nothing can be done without it. All resources would fail alike, so the first one
        alone says why; the run has failed then."""
        try:
            return self.live()
        except UserError as problem:
            if not first_to_fail():
                return self
            raise UserError(str(problem)) from None  # not `Unavailable`, which would pass for "as last known"
