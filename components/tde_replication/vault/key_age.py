"""How old principal keys are, and which rotation is the newest: by Vault, and not by the servers.

Vault has every key while the servers are down, also the one that a killed `up` made and did not set. pg_tde's
key_creation_time is no age: it is when the key was last set on that server.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tde_replication.errors import UserError
from tde_replication.rotations import directory, following, with_rotations
from tde_replication.unasked import could_not_ask
from tde_replication.values import length
from tde_replication.vault.client import Client


@dataclass(frozen=True)
class NewestKey:
    """The newest of a declared key and its rotations."""

    name: str
    made: datetime | None = None
    """When Vault got it; None: it has no such key yet, or cannot be asked."""
    others: tuple[str, ...] = ()
    """What servers, backups and data set aside may need besides: earlier rotations, former keys and their rotations."""

    def due(self, rotate_after: str | None) -> datetime | None:
        """When it is to be rotated; None: never, or not known."""
        return self.made + length(rotate_after) if self.made and rotate_after else None

    def names(self, rotate_after: str | None, now: datetime) -> tuple[str, ...]:
        """The key to use, then all others that servers must be able to open."""
        due = self.due(rotate_after)
        return (*((following(self.name),) if due and due <= now else ()), self.name, *self.others)


def newest_key(client: Client, mount: str, declared: str, former: Sequence[str]) -> NewestKey:
    """Where Vault cannot be asked, the declared key: `KeyBinding` never goes back to it from a rotation."""
    try:
        *earlier, newest = with_rotations(declared, names_beside(client, mount, declared))
        others = [one for key in former for one in with_rotations(key, names_beside(client, mount, key))]
        return NewestKey(newest, made_at(client, mount, newest), (*earlier, *others))
    except UserError as why:
        could_not_ask(f"which rotation of key {declared} is the newest, and how old it is", why)
        return NewestKey(declared, None, tuple(former))


def made_at(client: Client, mount: str, key: str) -> datetime | None:
    """When Vault got its first version; None where it has no such key. Raises `UserError` where Vault does not tell."""
    found = client.get(f"{mount}/metadata/{key}")
    if found is None:
        return None
    try:
        made = datetime.fromisoformat(str(found.get("created_time")))
        made = made.astimezone(UTC) if made.tzinfo else made.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UserError(f"the Vault at {client.address} does not report when key {key} was made") from None
    return min(made, datetime.now(UTC))  # its clock may be ahead of ours


def names_beside(client: Client, mount: str, key: str) -> list[str]:
    """Whole names of the keys in the same directory of the mount."""
    above = f"{directory(key)}/" if directory(key) else ""
    held = client.get(f"{mount}/metadata/{above}?list=true") or {}
    names = held.get("keys")
    return [f"{above}{name}" for name in names] if isinstance(names, list) else []
