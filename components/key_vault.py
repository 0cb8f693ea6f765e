"""What a cluster has in Vault: a KV version 2 mount, a policy per kind of server, a token per server, and the replication
role's credentials. By pulumi-vault; the Vault server itself is there before the stack.
"""

import json

import pulumi
import pulumi_vault as vault
from pulumi import Output, ResourceOptions

from components.vault_address import CREDENTIALS, VaultAddress, description

HOUR = 3600

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


class KeyVault(pulumi.ComponentResource):
    """The mount, ``<mount>-primary`` and ``<mount>-standby`` policies, a periodic token for each server, and the secret
    ``<mount>/data/replication/<role>``; on a mount that is somebody else's, ``<mount>-<stack>-…`` and
    ``…/replication/<stack>/<role>``.

    The mount holds principal keys: it stays when the stack goes, unless the stack is disposable; `keep_primary`: so do the
    primary's policy and token.
    """

    mount: Output[str]
    tokens: dict[str, Output[str]]

    def __init__(
        self,
        name: str,
        *,
        address: VaultAddress,
        mount: str,
        existing: bool,
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
            made = vault.Mount(
                f"{name}-mount",
                path=mount,
                type="kv",
                options={"version": "2"},
                description=description(name),
                opts=ResourceOptions.merge(
                    child,
                    ResourceOptions(
                        retain_on_delete=keep,
                        protect=protect,
                        import_=mount if address.left_by_a_killed_run(mount, name) else None,
                    ),
                ),
            )
            path = made.path
        self.mount = Output.from_input(path)
        # Other stacks may use a mount that is not this one's: what is named after it alone would be theirs too.
        apart = [name] if existing else []
        retained = ResourceOptions(retain_on_delete=keep_primary)
        policies = {
            kind: vault.Policy(
                f"{name}-{kind}-policy",
                name="-".join([*mount.split("/"), *apart, kind]),
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
            name="/".join([CREDENTIALS, *apart, role]),
            data_json=password.apply(lambda value: json.dumps({"username": role, "password": value})),
            delete_all_versions=True,
            opts=child,
        )
        self.register_outputs({"mount": self.mount})
