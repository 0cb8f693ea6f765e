"""What a stack has in Vault by its names: which policies, secrets and keys are its own, and whose a policy is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tde_replication.rotations import declared_name, directory, following
from tde_replication.vault.address import CREDENTIALS

Kind = Literal["primary", "standby"]
OWNER = "# Made by tde-replication for "


@dataclass(frozen=True)
class VaultNames:
    """Where what a stack has in Vault lies."""

    name: str
    """The component's; unique among the stacks that share a mount, as policies prove."""
    stack: str
    """The whole name of the stack, for people."""
    mount: str
    shared: bool
    """Whether the mount is somebody else's: others may have keys and secrets in it."""
    role: str
    keys: tuple[str, ...] = ()
    """The names of the stack's keys: first the one to use, then earlier and former ones. Only on a shared mount are they told
    apart."""
    servers: tuple[str, ...] = ()
    """Their names: each has a policy, which says what the primary or what a standby may."""
    renewing: tuple[str, ...] = ()
    """Those of them that renew their own tokens."""

    @property
    def secret(self) -> str:
        """The replication role's, in the mount."""
        return "/".join([CREDENTIALS, *([self.name] if self.shared else []), self.role])

    def policy(self, server: str) -> str:
        """The name of a server's policy; no two mounts, stacks and servers share one. (Vault takes names in lower case.)"""
        parts = [self.mount, *([self.name] if self.shared else []), server]
        return "__".join(map(_encoded, parts))

    @property
    def prefix(self) -> str:
        """Keys below it are the stack's own on a shared mount. The slash ends the name: "orders" has no part of "orders-eu"."""
        return f"{self.name}/"

    @property
    def key_paths(self) -> Sequence[str]:
        """The stack's keys as policies name them."""
        if not self.shared:
            return ["*"]
        return [f"{self.prefix}*", *sorted(key for key in set(self.keys) if not key.startswith(self.prefix))]

    def covers(self, key: str) -> bool:
        """Whether the servers' tokens open this key."""
        return not self.shared or key in self.keys or key.startswith(self.prefix)

    def policy_text(self, kind: Kind, *, renews: bool = False) -> str:
        """What pg_tde calls on a server of this kind, and no more; `renews`: what renews the token does so there."""
        mount, data = self.mount, f"{self.mount}/data"
        rules: list[tuple[str, list[str]]] = []
        if kind == "primary":
            rules.append((f"sys/mounts/{mount}", ["read"]))
        # Without "update", no key can ever be overwritten.
        opens = ["create", "read"] if kind == "primary" else ["read"]
        rules += [(f"{data}/{key}", opens) for key in self.key_paths]
        rules.append((f"{data}/{CREDENTIALS}/*", ["deny"]))
        if kind == "primary":
            listed = f"{mount}/metadata/" if self.shared else f"{mount}/metadata/*"
            rules += [(listed, ["list"]), (f"{mount}/metadata", ["list"])]
        if renews:
            rules.append(("auth/token/renew-self", ["update"]))
        lines = [f"{OWNER}{self.stack}."]
        for path, capabilities in rules:
            words = ", ".join(f'"{capability}"' for capability in capabilities)
            lines.append(f'path "{path}" {{ capabilities = [{words}] }}')
        return "\n".join(lines) + "\n"

    def rights(self) -> dict[str, set[str]]:
        """What the token of whoever runs `up` and `destroy` must be allowed, by path."""
        mount = f"sys/mounts/{self.mount}"
        own = {mount: {"read", "update", "delete"}, f"{mount}/tune": {"update"}}
        return {
            **({mount: {"read"}} if self.shared else own),
            f"{self.mount}/config": {"read"},
            f"{self.mount}/metadata/": {"list"},
            **self._rights_to_ages(),
            f"{self.mount}/data/{self.secret}": {"create", "read", "update"},
            f"{self.mount}/undelete/{self.secret}": {"update"},
            f"{self.mount}/metadata/{self.secret}": {"read", "delete"},
            **{f"sys/policies/acl/{self.policy(server)}": {"read", "update", "delete"} for server in self.servers},
            "auth/token/create-orphan": {"update", "sudo"},
            "auth/token/lookup-accessor": {"update"},
            "auth/token/renew-accessor": {"update"},
            "auth/token/revoke-accessor": {"update"},
        }

    def _rights_to_ages(self) -> dict[str, set[str]]:
        """To tell how old the key is, and which rotations of it there are."""
        if not self.keys:
            return {}
        name, metadata = declared_name(self.keys[0]), f"{self.mount}/metadata"
        listed = {f"{metadata}/{above}/": {"list"} for key in self.keys if (above := directory(key))}
        return {f"{metadata}/{key}": {"read"} for key in (name, following(name))} | listed


def owner(policy: str) -> str | None:
    """The stack that a policy's text was made for, by its first line; None where that does not say so."""
    first = policy.partition("\n")[0]
    return first.removeprefix(OWNER).rstrip(".") if first.startswith(OWNER) else None


def _encoded(name: str) -> str:
    """In the letters of a policy's name, so that two names never look the same."""
    return re.sub(r"[^a-z0-9.-]", lambda found: f"_{ord(found[0]):02x}", name)
