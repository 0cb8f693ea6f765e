"""A generated password."""

import secrets
import string
from typing import ClassVar, Self

from pydantic import SecretStr

from tde_replication.reconciler import Resource, Secret

LENGTH = 32


class Password(Resource):
    """32 letters and digits (190 bits), kept encrypted in the stack's state. Another `version` is another password."""

    version: int = 1
    value: Secret | None = None

    replaced_by: ClassVar[frozenset[str]] = frozenset({"version"})
    computed: ClassVar[frozenset[str]] = frozenset({"value"})
    secrets: ClassVar[frozenset[str]] = frozenset({"value"})

    @property
    def identity(self) -> str:
        return f"version {self.version}"

    def read(self) -> Self | None:
        return self

    def create(self) -> Self:
        alphabet = string.ascii_letters + string.digits
        return self.replace(value=SecretStr("".join(secrets.choice(alphabet) for _ in range(LENGTH))))

    def update(self, live: Self) -> Self:
        del live
        return self

    def delete(self) -> None:
        """It is in no server by itself: nothing to take away."""
