"""What is registered of every server, whichever part it has: its cleanup record, files, data directory, and the server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Resource, ResourceOptions

from tde_replication import hosts
from tde_replication.cluster_context import ClusterContext
from tde_replication.hosts.placement import TokenRenewal
from tde_replication.hosts.registration import Place
from tde_replication.member import Member, Standby
from tde_replication.postgres import resources

HOUR, RENEWALS = 3600, 4
"""How often a token is renewed in its period: once is enough, and Vault may be away."""


@dataclass(frozen=True)
class Recorded:
    """A server of which whatever is made from now on is found by a `destroy`."""

    member: Member
    place: Place
    record: resources.CleanupRecord

    @property
    def before(self) -> list[Resource]:
        """Come before anything that lies on it."""
        return [self.record, *self.place.resources]


@dataclass(frozen=True)
class Registered:
    """All of a server that standbys may stream from."""

    recorded: Recorded
    directory: resources.DataDirectory
    server: resources.Server
    last: Resource
    """What comes last of it: a standby's check."""

    @property
    def member(self) -> Member:
        return self.recorded.member

    def sender(self, context: ClusterContext, inside: Mapping[str, Any]) -> tuple[dict[str, Any], ResourceOptions]:
        """Where slots on it are, whichever part it has now, and their options. `inside`: the primary's."""
        # The system identifier is of the one cluster: a new clone is no new server.
        place = {**inside, **self.member.placement.location, "others": []}
        # Its directory takes them along, where that is removed.
        goes = context.cluster.disposable and not self.member.adopted
        gone = self.recorded.record if goes else None
        return place, context.child(depends_on=[self.server], deleted_with=gone)


def places(context: ClusterContext) -> dict[str, Place]:
    """What the servers' places are made of, by the servers' names."""
    made: dict[str, Place] = {}
    for kind in sorted({one.declared.kind for one in context.plan.members}):
        of_kind = {one.name: one.placement for one in context.plan.members if one.declared.kind == kind}
        made |= hosts.register_places(kind, of_kind, context.plan.context, context.child())
    return made


def record(
    context: ClusterContext,
    member: Member,
    place: Place,
    on_primary: Mapping[str, Any] | None = None,
    *,
    after: Sequence[Resource] = (),
) -> Recorded:
    """Before anything is made on it: what a killed `up` may leave there, and, as `on_primary` says, elsewhere."""
    made = resources.CleanupRecord(
        context.named(member.name),
        context.child(depends_on=[*place.resources, *after]),
        **_directory(context, member),
        adopted=member.adopted,
        files=list(member.removed_files),
        settings=dict(member.given_back),
        **(on_primary or {}),
    )
    return Recorded(member, place, made)


def vault_files(
    context: ClusterContext, member: Member, before: Sequence[Resource], token: pulumi.Input[str]
) -> list[Resource]:
    """What pg_tde opens before it can talk to Vault: the server's own token, and the CA. They are named after the key provider:
    another one has files of its own, beside the former ones."""
    plan, provider = context.plan, context.cluster.vault.provider

    def file(kind: str, name: str, content: pulumi.Input[str], mode: str) -> Resource:
        return resources.HostFile(
            context.named(f"{member.name}-{kind}"),
            context.child(depends_on=before, retain_on_delete=name not in member.removed_files),
            host=member.placement.address,
            path=member.placement.beside_data(name),
            content=content,
            mode=mode,
        )

    made = [file(f"{provider}-token", plan.files.token, token, "0600")]
    if plan.files.ca and plan.vault_address.ca:
        made.append(file(f"{provider}-ca", plan.files.ca, Path(plan.vault_address.ca).read_text(), "0644"))
    return made


def token_renewal(context: ClusterContext, member: Member, place: Place, files: Sequence[Resource]) -> list[Resource]:
    """What renews its token on its own machine, where that is declared and can be; `files`: its own for Vault."""
    plan, vault = context.plan, context.cluster.vault
    if member.name not in plan.vault_names.renewing or place.renew is None:
        return []
    at = member.placement.beside_data
    renewal = TokenRenewal(
        token=at(plan.files.token),
        url=plan.vault_url,
        ca=at(plan.files.ca) if plan.files.ca else "",
        namespace=plan.vault_address.namespace or "",
        seconds=int(vault.token_period.removesuffix("h")) * HOUR // RENEWALS,
    )
    return [place.renew(renewal, context.child(depends_on=list(files)))]


def data_directory(
    context: ClusterContext, member: Member, opts: ResourceOptions, **fields: Any
) -> resources.DataDirectory:
    """`fields` are those of the part that it has."""
    kind = resources.AdoptedDirectory if member.adopted else resources.ServerDirectory
    others = context.plan.places_beside(member)
    return kind(context.named(member.name), opts, **_directory(context, member), others=others, **fields)


def server(
    context: ClusterContext, recorded: Recorded, directory: resources.DataDirectory, opts: ResourceOptions
) -> resources.Server:
    member, container = recorded.member, recorded.place.container
    in_container = {"container": container.id, "networks": list(member.placement.networks)} if container else {}
    return resources.Server(
        context.named(member.name),
        opts,
        **member.placement.location,
        system_identifier=directory.system_identifier,
        made_at=directory.made_at,
        name=member.name,
        binaries=str(member.placement.binaries),
        settings=dict(member.parameters),
        recovery="standby" if isinstance(member, Standby) else "none",
        restart=member.declared.restart,
        ours=not member.adopted,
        **in_container,
    )


def _directory(context: ClusterContext, member: Member) -> dict[str, Any]:
    """What is declared of a data directory, however it is made."""
    return {
        **member.placement.location,
        "binaries": str(member.placement.binaries),
        "stack": context.plan.stack,
        "name": member.name,
        "disposable": context.cluster.disposable and not member.adopted,
    }
