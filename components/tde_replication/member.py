"""One server of a cluster: its place, and the resources that every server has, primary or standby."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pulumi
from pulumi import Output, Resource, ResourceOptions

from tde_replication import settings
from tde_replication.adapter import Managed
from tde_replication.hosts.placement import Placement
from tde_replication.placeholders import is_placeholder
from tde_replication.postgres import resources
from tde_replication.postgres.host_file import CA, PASSFILE
from tde_replication.postgres.synchronous import PARAMETER as SYNCHRONOUS
from tde_replication.values import slot_name

if TYPE_CHECKING:
    from tde_replication.cluster_plan import ClusterPlan

T = TypeVar("T")
STANDBY_DEFAULTS = {"wal_retrieve_retry_interval": "1s"}
"""Parameters of a standby that a person's own value outranks: it follows again soon after its primary was restarted."""


@dataclass(frozen=True)
class ClusterContext:
    """The cluster around a server."""

    plan: "ClusterPlan"
    parent: Resource
    first: tuple[Resource, ...] = ()
    """Everything else depends on these, so that they outlive it: machines that the same program makes, and `Expiry`. There is no
    input from a machine: with one, the engine would delete data without a question where it replaces a machine."""

    def child(self, **options: Any) -> ResourceOptions:
        return after(ResourceOptions(parent=self.parent, **options), *self.first)

    def named(self, name: str) -> str:
        """The name of one of the cluster's resources."""
        return self.plan.context.named(name)

    @property
    def stack(self) -> str:
        return self.plan.stack

    @property
    def cluster(self) -> settings.Cluster:
        return self.plan.cluster

    @property
    def encrypted(self) -> bool:
        """Whether pg_tde is used."""
        return self.plan.in_force

    @property
    def ca(self) -> str | None:
        """The path of the Vault's CA certificate here."""
        return self.plan.vault_address.ca

    @property
    def token_file(self) -> str:
        """Files beside each data directory have the same names on all servers: pg_tde knows one path of each."""
        return self.plan.token_file

    @property
    def ca_file(self) -> str | None:
        return f"{self.plan.name}{CA}" if self.ca else None

    @property
    def passfile(self) -> str:
        return f"{self.plan.name}{PASSFILE}"


@dataclass(frozen=True)
class Member:
    """One declared server, and its place."""

    declared: settings.Server
    placement: Placement
    ready: list[Resource] = field(default_factory=list)
    """Resources that come before anything that lies on it."""

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def slot(self) -> str:
        """Its slot on the server that it streams from."""
        return slot_name(self.name)

    @property
    def data_directory_kind(self) -> type[resources.ServerDirectory | resources.AdoptedDirectory]:
        return resources.AdoptedDirectory if self.declared.adopt else resources.ServerDirectory

    @property
    def occupies(self) -> list[tuple[str, str, object]]:
        """Machine, setting and value of what no other server may have."""
        if self.placement.in_container:
            return [("dockerd", "port", self.placement.published)]
        machine = self.declared.machine
        if is_placeholder(machine):
            return []
        return [(machine, "port", self.placement.port), (machine, "dataDirectory", str(self.placement.data))]

    def beside_data(self, name: str) -> str:
        """The path of a file beside the data directory."""
        return str(self.placement.data.with_name(name))

    def cleanup_record(
        self,
        context: ClusterContext,
        *files: str | None,
        after: Sequence[Resource] = (),
        on_primary: Mapping[str, Any] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """Before anything is made on it: what a killed `up` may leave there, so that `destroy` finds it. `parameters`: what is
        set for its part in the cluster."""
        stays = self.declared.adopt and context.encrypted
        made = resources.CleanupRecord(
            context.named(self.name),
            context.child(depends_on=[*self.ready, *after]),
            **self.directory(context),
            adopted=self.declared.adopt,
            files=[name for name in files if name and not (stays and name != context.passfile)],
            settings=self._given_back(context, parameters or {}) if self.declared.adopt else {},
            **(on_primary or {}),
        )
        self.ready.insert(0, made)

    def _given_back(self, context: ClusterContext, parameters: Mapping[str, str]) -> dict[str, str]:
        """All parameters that the stack sets on an adopted server: `destroy` gives back what they were."""
        plan = context.plan
        return {
            **self.parameters(context.cluster, encrypted=plan.in_force),
            **parameters,
            **({"pg_tde.wal_encrypt": "on"} if context.cluster.wal_encryption and plan.in_force else {}),
            **({SYNCHRONOUS: plan.synchronous.names()} if plan.synchronous else {}),
        }

    def directory(self, context: ClusterContext) -> dict[str, Any]:
        """What is declared of a data directory, however it is made."""
        return {
            **self.placement.location,
            "binaries": str(self.placement.binaries),
            "stack": context.stack,
            "name": self.name,
            "disposable": context.cluster.disposable and not self.declared.adopt,
        }

    def vault_files(self, context: ClusterContext, token: pulumi.Input[str]) -> list[Resource]:
        """What pg_tde opens before it can talk to Vault: the server's own token, and the CA."""

        def file(kind: str, name: str, content: pulumi.Input[str], mode: str) -> Resource:
            # An adopted primary with pg_tde goes on after the stack, and could not start without them.
            opts = context.child(depends_on=self.ready, retain_on_delete=self.declared.adopt and context.encrypted)
            path = self.beside_data(name)
            return resources.HostFile(
                context.named(f"{self.name}-{kind}"),
                opts,
                host=self.placement.address,
                path=path,
                content=content,
                mode=mode,
            )

        made = [file("vault-token", context.token_file, token, "0600")]
        if context.ca and context.ca_file:
            made.append(file("vault-ca", context.ca_file, Path(context.ca).read_text(), "0644"))
        return made

    def server(
        self,
        context: ClusterContext,
        directory: resources.DataDirectory,
        opts: ResourceOptions,
        parameters: dict[str, str],
    ) -> resources.Server:
        """`parameters` are what its part in the cluster needs; for a primary, nothing."""
        in_container: dict[str, Any] = {}
        if self.placement.in_container:
            in_container = {"container": self.ready[-1].id, "networks": list(self.placement.networks)}  # type: ignore[attr-defined]
        return resources.Server(
            context.named(self.name),
            opts,
            **self.placement.location,
            system_identifier=directory.system_identifier,
            made_at=directory.made_at,
            name=self.name,
            binaries=str(self.placement.binaries),
            settings=self.parameters(context.cluster, encrypted=context.encrypted) | parameters,
            recovery="standby" if parameters else "none",
            restart=self.declared.restart,
            ours=not self.declared.adopt,
            **in_container,
        )

    def parameters(self, cluster: settings.Cluster, *, encrypted: bool) -> dict[str, str]:
        """A person's own parameters, those that the kind of host decides, and what replication needs."""
        libraries = [self.declared.settings.get("shared_preload_libraries"), "pg_tde" if encrypted else None]
        needed = {"max_slot_wal_keep_size": cluster.replication.max_slot_wal_keep_size}
        if not self.declared.adopt:
            needed |= {
                "port": str(self.placement.port),
                "listen_addresses": ",".join(self.declared.listens),
                "cluster_name": self.name,
                **self.placement.parameters,
            }
        if encrypted:
            needed["pg_tde.cipher"] = cluster.cipher
        if self.declared.apply_delay and self.declared is not cluster.primary_server:
            needed["recovery_min_apply_delay"] = self.declared.apply_delay
        if any(libraries):
            needed["shared_preload_libraries"] = ",".join(filter(None, libraries))
        own = followed(cluster) | self.declared.settings | needed
        return own if self.declared is cluster.primary_server else STANDBY_DEFAULTS | own


def followed(cluster: settings.Cluster) -> dict[str, str]:
    """What servers declare of the parameters that no standby may have lower than its primary: the highest of each. So a
    switchover changes none of them."""
    found: dict[str, str] = {}
    for server in cluster.members:
        for name in settings.FOLLOWED_PARAMETERS & server.settings.keys():
            value, known = server.settings[name], found.get(name)
            if known is None or (value.isdecimal() and known.isdecimal() and int(value) > int(known)):
                found[name] = value
    return found


def after(opts: ResourceOptions, *before: Resource) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=list(before)))


def as_primary(inside: Mapping[str, Any]) -> dict[str, Any]:
    """The primary, as a resource of another server knows it; `inside` is how its own resources do."""
    return {
        "primary_host": inside["host"],
        "primary_directory": inside["data_directory"],
        "primary_identifier": inside["system_identifier"],
    }


def alone(output: Output[T]) -> Output[T]:
    """The same value, of which the engine does not know where it comes from: it replaces what depends on a replaced resource."""
    return Output(set(), output.future(), output.is_known())  # type: ignore[arg-type]


def urn_of_child(parent: Resource, kind: type[Managed], name: str) -> Output[str]:
    """Its URN, whatever components this one is in. Without the dependency that the component's own URN has as an output:
    who depends on a component depends on all its children."""
    own: Output[str | None] = alone(parent.urn)

    def below(urn: str | None) -> str:
        stack, project, types, _ = (urn or "").split("::", 3)
        return f"{stack}::{project}::{types}${kind.token()}::{name}"

    return own.apply(below)
