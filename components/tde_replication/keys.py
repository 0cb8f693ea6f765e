"""What a cluster has in Vault, and what makes its primary encrypt with a key from there."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi_vault as vault
from pulumi import Input, Output, Resource, ResourceOptions

from tde_replication.cluster_context import ClusterContext, after
from tde_replication.member import Member
from tde_replication.postgres import resources
from tde_replication.values import TEMPLATE
from tde_replication.vault.key_vault import KeyVault


def key_vault(context: ClusterContext, password: Output[str]) -> KeyVault:
    """The mount, and the role's secret with its `password`; servers get theirs by `token`."""
    plan = context.plan
    called = plan.cluster.vault.name
    provider = vault.Provider(
        f"{plan.name}-vault{f'-{called}' if called else ''}",
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
        encrypted=plan.in_force,
        named=context.named,
        password=password,
        called=called,
        opts=context.child(providers=[provider]),
    )


def token(context: ClusterContext, made: KeyVault, member: Member, *before: Resource) -> tuple[Resource, Output[str]]:
    """A server's policy and token; what comes `before` its policy."""
    plan = context.plan
    return made.token(
        member.name,
        "primary" if member is plan.primary else "standby",
        int(plan.cluster.vault.token_period.removesuffix("h")),
        keep=member.adopted,
        after=before,
    )


def extensions(context: ClusterContext, inside: Mapping[str, Any], opts: ResourceOptions) -> dict[str, Resource]:
    """The extension in the other databases, side by side, by their names."""
    found: dict[str, Resource] = {}
    for name in sorted(context.cluster.databases, key=lambda name: name == TEMPLATE):
        # No database can be made of a template that somebody is connected to.
        before = found.values() if name == TEMPLATE else ()
        found[name] = resources.Extension(
            context.named(f"pg_tde in {name}"), after(opts, *before), **inside, database=name
        )
    return found


def keys(
    context: ClusterContext,
    inside: Mapping[str, Any],
    mount: Input[str],
    opts: ResourceOptions,
    others: Mapping[str, Resource],
) -> list[Resource]:
    """Extension → key provider → principal key → what it is set for, in the order that pg_tde needs; the last of them. `others`:
    the extension in other databases."""
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
        token_path=f"../{plan.files.token}",
        ca_path=f"../{plan.files.ca}" if plan.files.ca else "",
        namespace=plan.vault_address.namespace or "",
        existing=cluster.vault.existing,
        mount_stays=plan.mount_stays,
        adopted=primary.adopted,
    )
    standbys = [(member.placement.address, str(member.placement.data)) for member in plan.standbys]

    def principal_key(key: str, database: str, *before: Resource) -> Resource:
        return resources.PrincipalKey(
            context.named(key),
            after(opts, *before),
            **inside,
            database=database,
            key=key,
            provider=provider,
            cipher=cluster.cipher,
        )

    def binding(name: str, scope: str, key: str, database: str, *before: Resource) -> Resource:
        return resources.KeyBinding(
            context.named(name),
            after(opts, *before),
            **inside,
            database=database,
            scope=scope,
            key=key,
            provider=provider,
            standbys=standbys,
            slots=[member.slot for member in plan.standbys],
            adopted=primary.adopted,
        )

    provided = last
    last = principal_key(plan.key, cluster.database, provided)
    for scope in sorted(cluster.key.scope, reverse=True):  # the server's first: a default alone would set both
        last = binding(f"{scope} key", scope, plan.key, cluster.database, last)
    own = []
    for database, key in sorted(cluster.keys.items()):
        made = principal_key(key.name, database, provided, *([others[database]] if database in others else []))
        # After the default key, which would take along a database that has the same one.
        own.append(binding(f"key of {database}", "database", key.name, database, last, made))
    return [wal_encryption(context, primary, inside["system_identifier"], after(opts, last)), *own]


def databases(
    context: ClusterContext,
    inside: Mapping[str, Any],
    opts: ResourceOptions,
    ready: Sequence[Resource],
    extensions: Mapping[str, Resource],
) -> list[Resource]:
    """What is declared of the tables of all databases. `ready`: what is needed to make an encrypted table; `extensions`: in the
    other databases."""
    cluster = context.cluster
    encrypted = [
        resources.DatabaseEncryption(
            context.named(f"encryption in {name}"),
            after(opts, *ready, *([extensions[name]] if name in extensions else [])),
            **inside,
            database=name,
            settings=cluster.database_settings,
            patterns=[one.model_dump(by_alias=True) for one in context.plan.tables.get(name, [])],
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
        adopted=member.adopted,
    )
