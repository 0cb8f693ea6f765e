"""`EncryptedReplication`: a primary and its standbys with pg_tde, as one component."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

import pulumi
from pulumi import Output, Resource, ResourceOptions

from tde_replication import configuration, later, records, settings, stack_file, unasked
from tde_replication.build import build
from tde_replication.cluster_context import ClusterContext
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.errors import UserError, escaped
from tde_replication.hosts.placement import PlacementContext
from tde_replication.machines import machines
from tde_replication.member import Occupied
from tde_replication.plan import context_of, plan
from tde_replication.postgres import resources
from tde_replication.results import Results
from tde_replication.unknown import gathered
from tde_replication.values import length
from tde_replication.vault.address import VaultAddress

TYPE = "tde:index:EncryptedReplication"
T = TypeVar("T")
U = TypeVar("U")

_OCCUPIED: dict[str, dict[Occupied, str]] = {}
"""By cluster of this program: what its servers occupy, and which one does."""


class EncryptedReplication(pulumi.ComponentResource):
    """Outputs hold what was declared and identities; nothing in them changes by itself."""

    primary: Output[dict[str, Any]]
    """name, host, port, dataDirectory, state."""
    standbys: Output[list[dict[str, Any]]]
    """The same, and slot, of each."""
    primary_dsn: Output[str]
    standby_dsns: Output[list[str]]
    """These are the superuser's, on the server's own machine."""
    read_write_dsn: Output[str]
    """For clients: a connection string with all servers, which leads to the primary, whoever that is. The same after a
    switchover; user and password are the client's own."""
    read_only_dsn: Output[str]
    """The same, which leads to a standby where there is one."""
    vault: Output[dict[str, str]]
    """address, mount."""
    encryption: Output[dict[str, Any]]
    """mode, inForce; provider and key, or the reason why it is not in force."""
    expires: Output[str | None]
    """When a test cluster may be destroyed, in ISO 8601; None: never."""
    summary: Output[str]
    """A few lines that a person wants to read first."""

    def __init__(
        self,
        name: str,
        cluster: settings.Cluster | Mapping[str, Any] | str,
        opts: ResourceOptions | None = None,
        *,
        vault_address: VaultAddress | None = None,
        source: str | None = None,
    ) -> None:
        """`cluster`: the typed settings, or a mapping or JSON with the keys of a stack file. `vault_address`: default as
        ``vault:address`` and ``vault:token`` of the stack's configuration, else the environment, say. `source`: what errors
        call the place of these settings.

        A component that is named as the stack is the stack's own cluster: its resources have the names of its servers alone. Of
        any other one, the component's name stands before them.

        Raises `tde_replication.UserError` before any resource is registered. Where addresses are outputs, their resources are
        made first; what is wrong then ends the program before anything else of the cluster is touched.
        """
        source = source or f'EncryptedReplication "{name}"'
        declared, address = configuration.read(source, cluster, vault_address)

        def context(found: settings.Cluster) -> PlacementContext:
            return context_of(pulumi.get_project(), pulumi.get_stack(), name, found)

        def planned(found: settings.Cluster) -> ClusterPlan:
            others = {one: who for other, of in _OCCUPIED.items() if other != name for one, who in of.items()}
            with unasked.told(pulumi.log.warn):
                whole = plan(context(found), found, address, source, others)
            _OCCUPIED[name] = whole.occupied(source)
            return whole

        if not (outputs := later.outputs_of(declared)):
            whole = planned(declared)
            super().__init__(TYPE, name, None, opts)
            self._show(build(self._context(whole)))
            return
        super().__init__(TYPE, name, None, opts)

        def once_known(values: Sequence[later.Value]) -> Output[Results]:
            found = stack_file.resolved(source, declared, values)
            made = machines(context(found).named, declared, found, ResourceOptions(parent=self))
            answering = Output.all(*(one.output("host") for one in made))
            return answering.apply(
                _ending(lambda _: build(self._context(planned(found), made))), run_with_unknowns=True
            )

        results: Output[Results] = gathered(outputs).apply(_ending(once_known), run_with_unknowns=True)
        self._show(Results(*(results.apply(attrgetter(field.name)) for field in fields(Results))))
        # Whoever depends on a component waits for the children that it has then, and the others come later.
        resources.CompleteCluster(name, ResourceOptions(parent=self), servers=results.apply(attrgetter("servers")))

    def _context(self, planned: ClusterPlan, made: Sequence[Resource] = ()) -> ClusterContext:
        if planned.reason:
            pulumi.log.warn(escaped(f"NOT ENCRYPTED: {planned.reason}"), self)
        if planned.findings.cost:
            pulumi.log.debug(records.written(planned.findings.cost))
        if (key := planned.newest_key).made:
            there = planned.primary.placement
            fact = records.Fact(
                kind="key since",
                of=key.name,
                host=there.address,
                data_directory=str(there.data),
                text=key.made.isoformat(),
                number=int(length(lasts).total_seconds()) if (lasts := planned.cluster.key.rotate_after) else None,
            )
            pulumi.log.debug(records.written(fact))
        for notice in [*([planned.findings.cost.text] if planned.findings.cost else []), *planned.findings.notices]:
            pulumi.log.warn(escaped(notice), self)
        return ClusterContext(planned, self, tuple(made))

    def _show(self, results: Results) -> None:
        self.primary, self.standbys, self.vault = results.primary, results.standbys, results.vault
        self.primary_dsn, self.standby_dsns = results.primary_dsn, results.standby_dsns
        self.read_write_dsn, self.read_only_dsn = results.read_write_dsn, results.read_only_dsn
        self.encryption, self.expires, self.summary = results.encryption, results.expires, results.summary
        names = ("primary", "standbys", "read_write_dsn", "read_only_dsn", "vault", "encryption", "expires", "summary")
        self.register_outputs({name: getattr(self, name) for name in names})


def _ending(work: Callable[[T], U]) -> Callable[[T], U]:
    """Have the program end with the sentence alone: nobody can catch what is raised once its text was run."""

    def told(value: T) -> U:
        try:
            return work(value)
        except UserError as problem:
            raise pulumi.RunError(str(problem)) from None

    return told
