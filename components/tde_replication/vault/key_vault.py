"""What a cluster has in Vault: a KV version 2 mount, a policy per kind of server, a token per server, and the replication
role's credentials. The Vault server itself is there before the stack.

By pulumi-vault, but for what it cannot do: its token resource is deprecated, and its secret does not see that a value is gone.
"""

import json
from collections.abc import Callable, Mapping

import pulumi
import pulumi_vault as vault
from pulumi import Output, ResourceOptions

from tde_replication.vault import resources
from tde_replication.vault.address import VaultAddress, description
from tde_replication.vault.names import KINDS, Kind, VaultNames


class KeyVault(pulumi.ComponentResource):
    """The mount, a policy for each kind of server, a periodic token for each server, and the replication role's secret; their
    names are `VaultNames`.

    The mount holds principal keys: it stays when the stack goes, unless the stack is disposable; `keep_primary`: so do the
    primary's policy and token.
    """

    mount: Output[str]
    tokens: dict[str, Output[str]]

    def __init__(
        self,
        name: str,
        *,
        named: Callable[[str], str],
        address: VaultAddress,
        names: VaultNames,
        keep: bool,
        keep_primary: bool,
        protect: bool,
        servers: Mapping[str, Kind],
        token_period_hours: int,
        password: Output[str],
        opts: ResourceOptions,
    ) -> None:
        super().__init__("tde:index:KeyVault", name, None, opts)
        child = ResourceOptions(parent=self, depends_on=opts.depends_on)
        path: pulumi.Input[str] = names.mount
        if not names.shared:
            made = vault.Mount(
                f"{name}-mount",
                path=names.mount,
                type="kv",
                options={"version": "2"},
                description=description(names.name),
                opts=ResourceOptions.merge(
                    child,
                    ResourceOptions(
                        retain_on_delete=keep,
                        protect=protect,
                        import_=names.mount if address.left_by_a_killed_run(names.mount, names.name) else None,
                    ),
                ),
            )
            path = made.path
        self.mount = Output.from_input(path)
        retained = ResourceOptions(retain_on_delete=keep_primary)
        policies = {
            kind: vault.Policy(
                f"{name}-{kind}-policy",
                name=names.policy(kind),
                policy=self.mount.apply(lambda _, kind=kind: names.policy_text(kind)),  # type: ignore[misc]
                opts=ResourceOptions.merge(child, retained if kind == "primary" else None),
            )
            for kind in KINDS
        }
        here = {"address": address.address, "ca": address.ca or "", "namespace": address.namespace or ""}
        self.tokens = {
            server: resources.Token(
                named(f"{server}-token"),
                ResourceOptions.merge(child, retained if kind == "primary" else None),
                **here,
                server=server,
                policies=[policies[kind].name],
                period_hours=token_period_hours,
            ).client_token
            for server, kind in servers.items()
        }
        secret = vault.kv.SecretV2(
            f"{name}-replication-secret",
            mount=self.mount,
            name=names.secret,
            data_json=password.apply(lambda value: json.dumps({"username": names.role, "password": value})),
            # It goes elsewhere with its mount, and pulumi-vault would fail to delete it where it was: see `SecretContent`.
            opts=ResourceOptions.merge(child, ResourceOptions(retain_on_delete=True)),
        )
        resources.SecretContent(
            f"{name}-replication-secret",
            ResourceOptions.merge(child, ResourceOptions(depends_on=[secret])),
            **here,
            mount=self.mount,
            name=names.secret,
            username=names.role,
            password=password,
        )
        self.register_outputs({"mount": self.mount})
