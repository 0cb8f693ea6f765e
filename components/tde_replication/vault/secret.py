"""What is in the replication role's secret.

pulumi-vault writes it, does not see when a value is deleted or replaced, and leaves it.
"""

import contextlib
from typing import ClassVar, Literal, Self

from tde_replication.reconciler import Secret
from tde_replication.vault.client import Rejected
from tde_replication.vault.resource import InVault


class SecretContent(InVault):
    """The current version of a KV version 2 secret."""

    mount: str
    name: str
    username: str
    password: Secret
    content: Literal["as declared", "deleted", "another"] = "as declared"

    replaced_by: ClassVar[frozenset[str]] = InVault.replaced_by | {"mount", "name"}
    secrets: ClassVar[frozenset[str]] = frozenset({"password"})

    @property
    def identity(self) -> str:
        return f"{self.mount}/data/{self.name}"

    @property
    def _data(self) -> dict[str, str]:
        return {"username": self.username, "password": self.password.get_secret_value()}

    def live(self) -> Self | None:
        found = self.client.get(self.identity)
        if found is None:
            return None
        if found.get("data") is None:
            return self.replace(content="deleted")
        return self.replace(content="as declared" if found["data"] == self._data else "another")

    def create(self) -> Self:
        return self.update(self)

    def update(self, live: Self) -> Self:
        """Bring a deleted version back, so that pulumi-vault finds the one that it wrote; else write another."""
        del live
        found = self.client.get(self.identity) or {}
        metadata = found.get("metadata")
        if found and found.get("data") is None and isinstance(metadata, dict):
            with contextlib.suppress(Rejected):
                self.client.post(f"{self.mount}/undelete/{self.name}", {"versions": [metadata.get("version")]})
        now = self.live()
        if now is None or now.content != "as declared":
            self.client.post(self.identity, {"data": self._data})
        return self

    def delete(self) -> None:
        """All versions of it. pulumi-vault leaves them: it fails to delete what went elsewhere with its mount."""
        self.client.delete(f"{self.mount}/metadata/{self.name}")
