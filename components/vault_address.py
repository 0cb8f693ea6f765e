"""The Vault server as this program and the servers reach it; what has to be asked of it before anything is declared."""

import json
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pulumi
from pulumi import Output

from components.errors import Problem

PATIENCE = 3.0
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
CREDENTIALS = "replication"
"""Where in a mount the role's credentials are, apart from keys."""


@dataclass(frozen=True)
class VaultAddress:
    """How the Vault is reached, by this program and by the servers."""

    address: str
    token: Output[str] | None
    """None where pulumi-vault takes it from VAULT_TOKEN or ~/.vault-token, so that no state holds it."""
    ca: str | None
    namespace: str | None = None
    """The namespace that all paths are in; None: the root's."""

    @classmethod
    def configured(cls) -> Self:
        """From ``vault:address`` and ``vault:token`` of the stack file, else the environment, where none is `missing`. CA and
        namespace are from the environment, as pulumi-vault takes them.

        Raises `Problem`.
        """
        address = _configured_address()
        _expect_listener(address)
        token = pulumi.Config("vault").get_secret("token")
        # A slash at the end would double in the URLs that pg_tde makes.
        ca, namespace = os.environ.get("VAULT_CACERT"), os.environ.get("VAULT_NAMESPACE", "").strip("/")
        return cls(address.rstrip("/"), token, ca, namespace or None)

    @staticmethod
    def missing() -> list[str]:
        """Mistakes: what is set nowhere."""
        found = []
        if not _configured_address():
            found.append(
                "vault:address: missing; set it in the stack file, or VAULT_ADDR; `make vault` starts the embedded one"
            )
        token = pulumi.Config("vault").get_secret("token") or os.environ.get("VAULT_TOKEN")
        if not token and not Path("~/.vault-token").expanduser().exists():
            found.append("vault:token: missing; set VAULT_TOKEN, or `pulumi config set --secret vault:token`")
        return found

    def lacks(self, mount: str) -> bool:
        """Whether there is no `mount`; not where Vault does not answer."""
        try:
            return self._ask(f"sys/mounts/{quote(mount)}") is None
        except (OSError, ValueError):
            return False

    def made_for(self, mount: str, name: str) -> bool:
        """Whether `mount` was made by the stack of that name; not where Vault does not answer."""
        try:
            found = self._ask(f"sys/mounts/{quote(mount)}") or {}
        except (OSError, ValueError):
            return False  # pulumi-vault will say what is wrong
        options = found.get("options") or {}
        return (found.get("type"), found.get("description"), options.get("version")) == ("kv", description(name), "2")

    def left_by_a_killed_run(self, mount: str, name: str) -> bool:
        """Whether `mount` was made by the stack of that name and holds no key: a run that made it was killed before Pulumi's
        state knew of it. Vault would refuse to make it again."""
        try:
            held = self._ask(f"{quote(mount)}/metadata?list=true") or {}
        except (OSError, ValueError):
            return False
        return self.made_for(mount, name) and set(held.get("keys", [])) <= {f"{CREDENTIALS}/"}

    def _ask(self, path: str) -> dict[str, Any] | None:
        """The data at an API path; None where there is none, or where something else than Vault answers."""
        file = Path("~/.vault-token").expanduser()
        token = pulumi.Config("vault").get("token") or os.environ.get("VAULT_TOKEN") or file.read_text().strip()
        headers = {"X-Vault-Token": token} | ({"X-Vault-Namespace": self.namespace} if self.namespace else {})
        trust = ssl.create_default_context(cafile=self.ca) if self.address.startswith("https:") else None
        request = Request(f"{self.address}/v1/{path}", headers=headers)  # noqa: S310 - as configured
        try:
            with urlopen(request, timeout=PATIENCE, context=trust) as answer:  # noqa: S310
                found = json.load(answer)
                data = found.get("data") if isinstance(found, dict) else None
                return data if isinstance(data, dict) else None
        except HTTPError as error:
            # Vault says 400 for a mount that is not there, and 404 for an empty list.
            with error:
                if error.code in {400, 404}:
                    return None
            raise


def _configured_address() -> str:
    return pulumi.Config("vault").get("address") or os.environ.get("VAULT_ADDR") or ""


def description(name: str) -> str:
    """What the mount of a stack's own is described as."""
    return f"principal keys and credentials of {name}"


def _expect_listener(address: str) -> None:
    """Say how to start a Vault on this machine that is down; one elsewhere may be hidden from here."""
    parts = urlsplit(address)
    if parts.hostname in LOOPBACK:
        try:
            socket.create_connection((parts.hostname, parts.port or 8200), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            raise Problem(
                f"nothing listens at {address}: start that Vault; `make vault` starts the embedded one"
            ) from None
