"""What a cluster has in Vault, and what makes its primary encrypt with a key from there."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi_vault as vault
from pulumi import Input, Output, Resource, ResourceOptions

from tde_replication.member import ClusterContext, Member, after
from tde_replication.postgres import resources
from tde_replication.postgres.session import TEMPLATE
from tde_replication.vault.key_vault import KeyVault


def key_vault(context: ClusterContext, password: Output[str]) -> KeyVault:
    """The mount, and the role's secret with its `password`; servers get theirs by `token`."""
    plan = context.plan
    provider = vault.Provider(
        f"{plan.name}-vault",
        address=plan.vault_address.address,
        token=plan.vault_address.token,
        ca_cert_file=plan.vault_address.ca,
        namespace=plan.vault_address.namespace,
        skip_child_token=True,
        max_retries=0,  # each resource would try for itself, and a Vault that is down be told after half a minute
        opts=context.child(),
    )
    return KeyVault(
        plan.name,
        address=plan.vault_address,
        names=plan.vault_names,
        keep=plan.mount_stays,
        protect=plan.cluster.protect,
        named=context.named,
        password=password,
        opts=context.child(providers=[provider]),
    )


def token(context: ClusterContext, made: KeyVault, member: Member, *before: Resource) -> tuple[Resource, Output[str]]:
    """A server's policy and token; what comes `before` its policy."""
    plan = context.plan
    return made.token(
        member.name,
        "primary" if member is plan.primary else "standby",
        int(plan.cluster.vault.token_period.removesuffix("h")),
        keep=member.declared.adopt,
        after=before,
    )


def keys(
    context: ClusterContext, inside: Mapping[str, Any], mount: Input[str], opts: ResourceOptions
) -> list[Resource]:
    """Extension → key provider → principal key → what it is set for, in the order that pg_tde needs; the last of them."""
    plan, cluster, primary = context.plan, context.cluster, context.plan.primary
    provider, here = cluster.vault.provider, {**inside, "database": cluster.database}
    last: Resource = resources.Extension(context.named(f"pg_tde in {cluster.database}"), opts, **here)
    last = resources.KeyProvider(
        context.named(provider),
        after(opts, last),
        **here,
        provider=provider,
        url=plan.vault_url,
        mount_path=mount,
        # Counted from PGDATA, so that it is the same on every server.
        token_path=f"../{context.token_file}",
        ca_path=f"../{context.ca_file}" if context.ca_file else "",
        namespace=plan.vault_address.namespace or "",
        existing=cluster.vault.existing,
        mount_stays=plan.mount_stays,
        adopted=primary.declared.adopt,
    )
    last = resources.PrincipalKey(
        context.named(plan.key),
        after(opts, last),
        **here,
        key=plan.key,
        provider=provider,
        cipher=cluster.cipher,
    )
    standbys = [(member.placement.address, str(member.placement.data)) for member in plan.standbys]
    for scope in sorted(cluster.key.scope, reverse=True):  # the server's first: a default alone would set both
        last = resources.KeyBinding(
            context.named(f"{scope} key"),
            after(opts, last),
            **here,
            scope=scope,
            key=plan.key,
            provider=provider,
            standbys=standbys,
            slots=[member.slot for member in plan.standbys],
            adopted=primary.declared.adopt,
        )
    last = wal_encryption(context, primary, inside["system_identifier"], after(opts, last))
    return [last]


def databases(
    context: ClusterContext, inside: Mapping[str, Any], opts: ResourceOptions, ready: Sequence[Resource]
) -> list[Resource]:
    """The extension in the other databases, side by side, and what is declared of the tables of all of them. `ready`: what is
    needed to make an encrypted table."""
    cluster = context.cluster
    extensions: dict[str, Resource] = {}
    for name in sorted(cluster.databases, key=lambda name: name == TEMPLATE):
        # No database can be made of a template that somebody is connected to.
        before = extensions.values() if name == TEMPLATE else ()
        extensions[name] = resources.Extension(
            context.named(f"pg_tde in {name}"), after(opts, *before), **inside, database=name
        )
    encrypted = [
        resources.DatabaseEncryption(
            context.named(f"encryption in {name}"),
            after(opts, *ready, *([extensions[name]] if name in extensions else [])),
            **inside,
            database=name,
            settings=cluster.database_settings,
        )
        for name in cluster.all_databases
        if cluster.database_settings
    ]
    return [*extensions.values(), *encrypted]


def wal_encryption(
    context: ClusterContext, member: Member, identifier: Input[str], opts: ResourceOptions
) -> resources.WalEncryption:
    """Of each server: WAL is encrypted by whoever writes it, a standby too."""
    return resources.WalEncryption(
        context.named(f"WAL of {member.name}"),
        opts,
        **member.placement.location,
        system_identifier=identifier,
        name=member.name,
        binaries=str(member.placement.binaries),
        wal_encrypt="on" if context.cluster.wal_encryption else "off",
        restart=member.declared.restart,
        adopted=member.declared.adopt,
    )
