"""`EncryptedReplication`: a primary and its standbys with pg_tde, as one component.

KeyVault ─ mount, policies, a token per server, the role's secret
└ Primary ─ CleanupRecord → DataDirectory + token file → Server
├ Extension → KeyProvider → PrincipalKey → KeyBinding (server, default) → WalEncryption
├ ReplicationRole → HbaRule
└ for each standby: CleanupRecord → ReplicationSlot → BaseBackup + token file + passfile → Server → ReplicationCheck
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi import Output, Resource, ResourceOptions

from tde_replication import report, settings, stack_file, unasked
from tde_replication.errors import escaped
from tde_replication.keys import key_vault, keys
from tde_replication.member import ClusterContext, after, as_primary
from tde_replication.plan import plan
from tde_replication.postgres import resources
from tde_replication.standby import standby
from tde_replication.vault.address import VaultAddress

TYPE = "tde:index:EncryptedReplication"


class EncryptedReplication(pulumi.ComponentResource):
    """Outputs hold what was declared and identities; nothing in them changes by itself."""

    primary: Output[dict[str, Any]]
    """name, host, port, dataDirectory, state."""
    standbys: Output[list[dict[str, Any]]]
    """The same, and slot, of each."""
    primary_dsn: Output[str]
    standby_dsns: Output[list[str]]
    vault: Output[dict[str, str]]
    """address, mount."""
    encryption: Output[dict[str, Any]]
    """mode, inForce; provider and key, or the reason why it is not in force."""
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

        Raises `tde_replication.UserError` before any resource is registered.
        """
        source = source or f'EncryptedReplication "{name}"'
        with unasked.told(pulumi.log.warn):
            self._plan = plan(name, *stack_file.read(source, cluster, vault_address), source)
        super().__init__(TYPE, name, None, opts)
        if self._plan.reason:
            pulumi.log.warn(escaped(f"NOT ENCRYPTED: {self._plan.reason}"), self)
        for notice in self._plan.notices:
            pulumi.log.warn(escaped(notice), self)
        self._around = ClusterContext(self._plan, self)
        self._build()

    def _build(self) -> None:
        cluster, primary, context = self._plan.cluster, self._plan.primary, self._around
        for member in self._plan.members:
            member.ready.extend(member.placement.make(context.child()))
        password = resources.Password(
            f"{self._plan.name}-replication-password", context.child(), version=cluster.replication.password_version
        ).output("value")
        vault = key_vault(context, password)
        adopted = primary.declared.adopt
        if not adopted:
            primary.cleanup_record(context, context.token_file, context.ca_file)
        kind = resources.AdoptedDirectory if adopted else resources.InitializedDirectory
        opts = context.child(depends_on=list(primary.ready), protect=cluster.protect)
        directory = kind(context.named(primary.name), opts, **primary.directory(context))
        inside = {**primary.placement.location, "system_identifier": directory.system_identifier}
        if adopted:
            known = {"role": cluster.replication.role, "clients": self._plan.clients, **as_primary(inside)}
            known["settings"] = primary.parameters(cluster, encrypted=self._plan.in_force) | (
                {"pg_tde.wal_encrypt": "on"} if cluster.wal_encryption and self._plan.in_force else {}
            )
            primary.cleanup_record(context, context.token_file, context.ca_file, on_primary=known)
        vault_files = primary.vault_files(context, vault.tokens[primary.name])
        opts = context.child(depends_on=[directory, *vault_files], protect=cluster.protect)
        server = primary.server(context, directory, opts, {})
        # Where the whole data directory goes, nothing in it has to be taken away first; one that is set aside or that stays
        # must not keep a slot, which would fill its disk, or a way in. With the claim, and not with the directory: that is in no
        # state any more where somebody has removed it.
        goes = cluster.disposable and not adopted
        on_primary = context.child(depends_on=[server], deleted_with=primary.ready[0] if goes else None)
        last_keys = keys(context, inside, vault.mount, on_primary) if self._plan.in_force else []
        role = resources.ReplicationRole(
            context.named(cluster.replication.role),
            on_primary,
            **inside,
            role=cluster.replication.role,
            password=password,
            stack=self._plan.stack,
        )
        rules = [self._hba_rule(address, inside, after(on_primary, role)) for address in self._plan.clients]
        for member in self._plan.standbys:
            slot = {"slot": member.slot, "primary_goes": goes, **as_primary(inside)}
            files = (context.token_file, context.ca_file, context.passfile)
            member.cleanup_record(context, *files, after=[server], on_primary=slot)
        checks = [
            standby(context, member, inside, on_primary, [*last_keys, *rules], vault.tokens[member.name], password)
            for member in self._plan.standbys
        ]
        self._register([server, *last_keys, role, *rules, *checks])

    def _hba_rule(self, address: str, inside: dict[str, Any], opts: ResourceOptions) -> resources.HbaRule:
        role = self._plan.cluster.replication.role
        return resources.HbaRule(
            self._around.named(f"{role} from {address}"),
            opts,
            **inside,
            connection_type="hostssl" if self._plan.cluster.replication.encrypted else "host",
            databases=[
                "replication",
                *self._plan.databases(*(n for n in self._plan.standbys if address in self._plan.clients_of(n))),
            ],
            role=role,
            address=address,
        )

    def _register(self, last: Sequence[Resource]) -> None:
        """Outputs, known once all is done."""
        done = Output.all(*(resource.urn for resource in last))

        def after(value: Any) -> Output[Any]:
            return done.apply(lambda _: value)

        primary, *standbys = [
            report.Line(
                member.name, member.declared.machine, *member.placement.seen_at, str(member.placement.data), slot
            )
            for member in self._plan.members
            for slot in [None if member is self._plan.primary else member.slot]
        ]
        self.primary = after(primary.output)
        self.standbys = after([line.output for line in standbys])
        self.primary_dsn = Output.secret(after(self._plan.primary.placement.dsn))
        self.standby_dsns = Output.secret(after([member.placement.dsn for member in self._plan.standbys]))
        self.vault = after({"address": self._plan.vault_address.address, "mount": self._plan.mount})
        state = {"provider": self._plan.cluster.vault.provider, "key": self._plan.key}
        why = {"reason": self._plan.reason}
        self.encryption = after(
            {"mode": self._plan.cluster.encryption, "inForce": self._plan.in_force}
            | (state if self._plan.in_force else why)
        )
        cap = self._plan.cluster.replication.max_slot_wal_keep_size
        self.summary = after(report.summary(self._plan.name, [primary, *standbys], cap, self._plan.reason))
        names = ("primary", "standbys", "vault", "encryption", "summary")
        self.register_outputs({name: getattr(self, name) for name in names})
