"""`vault` and `key` of the stack file: where the Vault is, and which of its keys the cluster is encrypted with."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from tde_replication.host_settings import Settings
from tde_replication.rotations import MARK, is_rotation
from tde_replication.values import AbsolutePath, Cipher, Duration, Namespace, VaultPath, VaultURL, distinct

NAME = r"^[a-z0-9_-]{1,63}$"


class Vault(Settings):
    """The Vault server, which is there before the stack."""

    name: Annotated[str, StringConstraints(pattern=NAME)] | None = None
    """What the stack calls this Vault, where the keys move to it from another one, or from another namespace: mount, policies and
    tokens are made there anew, and the former ones go last. Also the default of `provider`."""
    mount: VaultPath | None = None
    """The KV version 2 mount for this cluster's keys and credentials; default ``tde-`` and the stack's name."""
    existing: bool = False
    """Whether that mount was made by somebody else: then it is used, and never changed or removed."""
    address_from_servers: VaultURL | None = None
    """Its URL as the servers see it, where that is not vault:address: a container has a loopback of its own. Plain http is for
    a loopback alone."""
    network: str | None = None
    """A docker network that servers in containers join to reach it."""
    ca: AbsolutePath | None = None
    """The CA certificate that signed Vault's; default VAULT_CACERT, else the system's."""
    namespace: Namespace | None = None
    """Vault's namespace that the mount, policies and tokens are in; default VAULT_NAMESPACE, else the root's."""
    provider: Annotated[str, StringConstraints(pattern=NAME)] = "vault"
    """What the key provider is called in pg_tde, and the files that it opens on the servers. Another name moves to another
    mount, CA or address: both are there until every server has rotated."""
    token_period: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*h$")] = "768h"  # noqa: S105
    """The period of each server's token; every `up` within it renews the token."""
    renewal: Literal["up", "timer"] = "up"
    """What renews the servers' tokens: every `up`; and with ``timer`` a systemd timer, too, on each machine reached by ssh, which
    needs curl. Adopted servers get none."""

    @model_validator(mode="before")
    @classmethod
    def _of_its_name(cls, values: Any) -> Any:
        """Another Vault is never opened by the former one's key provider, which would look for its keys there."""
        named = isinstance(values, dict) and values.get("name") and not values.get("provider")
        return {**values, "provider": values["name"]} if named else values


def _no_rotation(name: str) -> str:
    if is_rotation(name):
        raise ValueError(
            f'"{name}" would be a rotation of another key (write a name that does not end in {MARK}<number>)'
        )
    return name


KeyName = Annotated[VaultPath, AfterValidator(_no_rotation)]


def _cipher(bits: Any) -> Cipher:
    return "aes_256" if bits == 256 else "aes_128"  # noqa: PLR2004 - bits


class DatabaseKey(Settings):
    """The principal key of one database, in place of the default key."""

    name: KeyName
    """Of a key that no other setting names. Another name is a rotation."""


class Key(Settings):
    name: KeyName | None = None
    """The principal key; default the stack's name and ``-principal-key``. Another name is a rotation."""
    rotate_after: Duration | None = None
    """How old a principal key may get: ``90d``. The next `up` after that rotates to a new one, ``<name>-rotation-1``, then
    ``-rotation-2`` and so on. Its age is counted from when Vault got it."""
    scope: Annotated[list[Literal["default", "server"]], Field(min_length=1), AfterValidator(distinct)] = [
        "server",
        "default",
    ]
    former: Annotated[list[KeyName], AfterValidator(distinct)] = []
    """On an existing mount, where servers may open no other stack's keys: names of earlier keys that they still need and that
    are not below ``<stack>/``; each with its rotations."""

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, values: Any) -> Any:
        if isinstance(values, dict) and "bits" in values:
            raise ValueError(
                f"bits is now the cluster's cipher: remove it, and write cipher: {_cipher(values['bits'])}"
            )
        return values
