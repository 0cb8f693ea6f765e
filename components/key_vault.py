"""What a cluster has in Vault: a KV version 2 mount, a policy per kind of server, a token per server, and the replication
role's credentials. By pulumi-vault; the Vault server itself is there before the stack.
"""

import json
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import pulumi
import pulumi_vault as vault
from pulumi import Output, ResourceOptions

from components.errors import Problem

HOUR = 3600
PATIENCE = 3.0

CREDENTIALS = "replication"
"""Where in the mount the role's credentials are, apart from keys."""
PRIMARY_POLICY = """\
# What pg_tde calls on the primary, and no more: without "update", no key can ever be overwritten.
path "sys/mounts/{mount}" {{ capabilities = ["read"] }}
path "{mount}/data/*" {{ capabilities = ["create", "read"] }}
path "{mount}/data/replication/*" {{ capabilities = ["deny"] }}
path "{mount}/metadata/*" {{ capabilities = ["list"] }}
path "{mount}/metadata" {{ capabilities = ["list"] }}
"""
STANDBY_POLICY = """\
# A standby opens keys; it can make none.
path "{mount}/data/*" {{ capabilities = ["read"] }}
path "{mount}/data/replication/*" {{ capabilities = ["deny"] }}
"""


@dataclass(frozen=True)
class VaultAddress:
    """How the Vault is reached, by this program and by the servers."""

    address: str
    token: Output[str] | None
    """None where pulumi-vault takes it from VAULT_TOKEN or ~/.vault-token, so that no state holds it."""
    ca: str | None

    @classmethod
    def configured(cls) -> Self:
        """From ``vault:address`` and ``vault:token`` of the stack file, else the environment. Raises `Problem`."""
        config = pulumi.Config("vault")
        address = config.get("address") or os.environ.get("VAULT_ADDR")
        token = config.get_secret("token")
        if not address:
            raise Problem(
                "vault:address is missing: set it in the stack file, or VAULT_ADDR; `make vault` starts the embedded one"
            )
        if not token and not os.environ.get("VAULT_TOKEN") and not Path("~/.vault-token").expanduser().exists():
            raise Problem("vault:token is missing: set VAULT_TOKEN, or `pulumi config set --secret vault:token`")
        _expect_listener(address)
        # A slash at the end would double in the URLs that pg_tde makes.
        return cls(address.rstrip("/"), token, os.environ.get("VAULT_CACERT"))

    def left_by_a_killed_run(self, mount: str, description: str, namespace: str | None) -> bool:
        """Whether `mount` is there, is described as ours and holds no key: a run that made it was killed before Pulumi's state
        knew of it. Vault would refuse to make it again."""
        try:
            found = self._ask(f"sys/mounts/{quote(mount)}", namespace)
            if not found or (found["type"], found["description"]) != ("kv", description):
                return False
            held = (self._ask(f"{quote(mount)}/metadata?list=true", namespace) or {}).get("keys", [])
            return (found["options"] or {}).get("version") == "2" and set(held) <= {f"{CREDENTIALS}/"}
        except (OSError, ValueError):
            return False  # pulumi-vault will say what is wrong

    def _ask(self, path: str, namespace: str | None) -> dict[str, Any] | None:
        """The data at an API path; None where there is none."""
        file = Path("~/.vault-token").expanduser()
        token = pulumi.Config("vault").get("token") or os.environ.get("VAULT_TOKEN") or file.read_text().strip()
        headers = {"X-Vault-Token": token} | ({"X-Vault-Namespace": namespace} if namespace else {})
        trust = ssl.create_default_context(cafile=self.ca) if self.address.startswith("https:") else None
        request = Request(f"{self.address}/v1/{path}", headers=headers)  # noqa: S310 - as configured
        try:
            with urlopen(request, timeout=PATIENCE, context=trust) as answer:  # noqa: S310
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except HTTPError as error:
            # Vault says 400 for a mount that is not there, and 404 for an empty list.
            with error:
                if error.code in {400, 404}:
                    return None
            raise


def _expect_listener(address: str) -> None:
    """Say how to start a Vault on this machine that is down; one elsewhere may be hidden from here."""
    parts = urlsplit(address)
    if parts.hostname in {"127.0.0.1", "::1", "localhost"}:
        try:
            socket.create_connection((parts.hostname, parts.port or 8200), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            raise Problem(
                f"nothing listens at {address}: start that Vault; `make vault` starts the embedded one"
            ) from None


class KeyVault(pulumi.ComponentResource):
    """The mount, ``<mount>-primary`` and ``<mount>-standby`` policies, a periodic token for each server, and the secret
    ``<mount>/data/replication/<role>``.

    The mount holds principal keys: it stays when the stack goes, unless the stack is disposable; `keep_primary`: so do the
    primary's policy and token.
    """

    mount: Output[str]
    tokens: dict[str, Output[str]]

    def __init__(
        self,
        name: str,
        *,
        mount: str,
        existing: bool,
        left_by_a_killed_run: Callable[[str], bool],
        keep: bool,
        keep_primary: bool,
        protect: bool,
        primary: str,
        standbys: list[str],
        token_period_hours: int,
        role: str,
        password: Output[str],
        opts: ResourceOptions,
    ) -> None:
        super().__init__("tde:index:KeyVault", name, None, opts)
        child = ResourceOptions(parent=self)
        path: pulumi.Input[str] = mount
        if not existing:
            description = f"principal keys and credentials of {name}"
            made = vault.Mount(
                f"{name}-mount",
                path=mount,
                type="kv",
                options={"version": "2"},
                description=description,
                opts=ResourceOptions.merge(
                    child,
                    ResourceOptions(
                        retain_on_delete=keep,
                        protect=protect,
                        import_=mount if left_by_a_killed_run(description) else None,
                    ),
                ),
            )
            path = made.path
        self.mount = Output.from_input(path)
        retained = ResourceOptions(retain_on_delete=keep_primary)
        policies = {
            kind: vault.Policy(
                f"{name}-{kind}-policy",
                name=f"{mount.replace('/', '-')}-{kind}",
                policy=self.mount.apply(lambda at, text=text: text.format(mount=at)),  # type: ignore[misc]
                opts=ResourceOptions.merge(child, retained if kind == "primary" else None),
            )
            for kind, text in (("primary", PRIMARY_POLICY), ("standby", STANDBY_POLICY))
        }
        self.tokens = {
            server: vault.Token(
                f"{server}-token",
                policies=[policies["primary" if server == primary else "standby"].name],
                period=f"{token_period_hours}h",
                no_parent=True,
                no_default_policy=True,
                renewable=True,
                # Renewed by every `up` in the second half of its period: pg_tde itself never renews.
                renew_min_lease=token_period_hours * HOUR // 2,
                renew_increment=token_period_hours * HOUR,
                display_name=server,
                opts=ResourceOptions.merge(
                    ResourceOptions.merge(child, retained if server == primary else None),
                    ResourceOptions(additional_secret_outputs=["clientToken"]),
                ),
            ).client_token
            for server in [primary, *standbys]
        }
        vault.kv.SecretV2(
            f"{name}-replication-secret",
            mount=self.mount,
            name=f"{CREDENTIALS}/{role}",
            data_json=password.apply(lambda value: json.dumps({"username": role, "password": value})),
            delete_all_versions=True,
            opts=child,
        )
        self.register_outputs({"mount": self.mount})
