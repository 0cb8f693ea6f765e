"""What a cluster has in Vault: a KV version 2 mount, a policy and a token per server, and the replication role's credentials.
The Vault server itself is there before the stack.

By pulumi-vault, but for what it cannot do: its token resource is deprecated, and its secret does not see that a value is gone.
"""

import json
from collections.abc import Callable, Sequence

import pulumi
import pulumi_vault as vault
from pulumi import Output, Resource, ResourceOptions

from tde_replication.vault import resources
from tde_replication.vault.address import VaultAddress, description
from tde_replication.vault.names import Kind, VaultNames


class KeyVault(pulumi.ComponentResource):
    """The mount, the replication role's secret, and by `token` what each server has; their names are `VaultNames`.

    The mount holds principal keys: it stays when the stack goes, unless the stack is disposable.
    """

    mount: Output[str]

    def __init__(
        self,
        name: str,
        *,
        named: Callable[[str], str],
        address: VaultAddress,
        names: VaultNames,
        keep: bool,
        protect: bool,
        encrypted: bool,
        password: Output[str],
        called: str | None,
        opts: ResourceOptions,
    ) -> None:
        """`called`: what the stack calls this Vault, where it has moved: what it has there are resources of their own."""
        super().__init__("tde:index:KeyVault", name, None, opts)
        child = ResourceOptions(parent=self, depends_on=opts.depends_on)
        self._there = f" in {called}" if called else ""
        path: pulumi.Input[str] = names.mount
        if not names.shared:
            made = vault.Mount(
                f"{name}-mount{self._there}",
                path=names.mount,
                type="kv",
                options={"version": "2"},
                description=description(names.name),
                opts=ResourceOptions.merge(
                    child,
                    ResourceOptions(
                        retain_on_delete=keep,
                        protect=protect,
                        import_=names.mount if address.is_left(names.mount, names.name, with_keys=keep) else None,
                        # Keys stay where they are: another mount is made beside it, and the former one goes last, if it goes.
                        replace_on_changes=["path"] if encrypted else None,
                    ),
                ),
            )
            path = made.path
        self.mount = Output.from_input(path)
        self._names, self._named, self._child = names, named, child
        self._here = {"address": address.address, "ca": address.ca or "", "namespace": address.namespace or ""}
        secret = vault.kv.SecretV2(
            f"{name}-replication-secret{self._there}",
            mount=self.mount,
            name=names.secret,
            data_json=password.apply(lambda value: json.dumps({"username": names.role, "password": value})),
            # It goes elsewhere with its mount, and pulumi-vault would fail to delete it where it was: see `SecretContent`.
            opts=ResourceOptions.merge(child, ResourceOptions(retain_on_delete=True)),
        )
        resources.SecretContent(
            f"{name}-replication-secret{self._there}",
            ResourceOptions.merge(child, ResourceOptions(depends_on=[secret])),
            **self._here,
            mount=self.mount,
            name=names.secret,
            username=names.role,
            password=password,
        )
        self.register_outputs({"mount": self.mount})

    def token(
        self, server: str, kind: Kind, period_hours: int, *, keep: bool, after: Sequence[Resource] = ()
    ) -> tuple[Resource, Output[str]]:
        """A server's policy and periodic token; `keep`: both stay when the stack goes. `after`: what comes before the policy.

        Each server's policy is its own, and another primary only changes what the two policies say: Vault asks them at each
        request, so that tokens stay as they are.
        """
        # pulumi-vault would delete a policy before another name's is made, and with it what running servers may open.
        opts = ResourceOptions.merge(self._child, ResourceOptions(retain_on_delete=keep, delete_before_replace=False))
        policy = vault.Policy(
            self._named(f"{server}-policy{self._there}"),
            name=self._names.policy(server),
            policy=self.mount.apply(lambda _: self._names.policy_text(kind, renews=server in self._names.renewing)),
            opts=ResourceOptions.merge(opts, ResourceOptions(depends_on=after)),
        )
        token = resources.Token(
            self._named(f"{server}-token{self._there}"),
            ResourceOptions.merge(opts, ResourceOptions(depends_on=[policy])),
            **self._here,
            server=server,
            policies=[self._names.policy(server)],  # not from its outputs: unknown in the preview of a switchover
            period_hours=period_hours,
        )
        return policy, token.client_token
