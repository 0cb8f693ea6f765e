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
import pulumi_vault as vault
from pulumi import Output, Resource, ResourceOptions

from tde_replication import report, settings, stack_file, unasked
from tde_replication.adapter import Managed
from tde_replication.errors import escaped
from tde_replication.hosts.addresses import networks
from tde_replication.member import ClusterContext, Member
from tde_replication.plan import plan
from tde_replication.postgres import resources
from tde_replication.postgres.guc import is_off
from tde_replication.postgres.upstream import Upstream, passfile
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.key_vault import KeyVault

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
        key_vault = self._key_vault(password)
        adopted = primary.declared.adopt
        if not adopted:
            primary.cleanup_record(context, context.token_file, context.ca_file)
        kind = resources.AdoptedDirectory if adopted else resources.InitializedDirectory
        opts = context.child(depends_on=list(primary.ready), protect=cluster.protect)
        directory = kind(context.named(primary.name), opts, **primary.directory(context))
        inside = {**primary.placement.location, "system_identifier": directory.system_identifier}
        if adopted:
            known = {"role": cluster.replication.role, "clients": self._clients(), **_primary(inside)}
            known["settings"] = primary.parameters(cluster, encrypted=self._plan.in_force) | (
                {"pg_tde.wal_encrypt": "on"} if cluster.wal_encryption and self._plan.in_force else {}
            )
            primary.cleanup_record(context, context.token_file, context.ca_file, on_primary=known)
        vault_files = primary.vault_files(context, key_vault.tokens[primary.name])
        opts = context.child(depends_on=[directory, *vault_files], protect=cluster.protect)
        server = primary.server(context, directory, opts, {})
        # Where the whole data directory goes, nothing in it has to be taken away first; one that is set aside or that stays
        # must not keep a slot, which would fill its disk, or a way in. With the claim, and not with the directory: that is in no
        # state any more where somebody has removed it.
        goes = cluster.disposable and not adopted
        on_primary = context.child(depends_on=[server], deleted_with=primary.ready[0] if goes else None)
        keys = self._keys(inside, key_vault, on_primary) if self._plan.in_force else []
        role = resources.ReplicationRole(
            context.named(cluster.replication.role),
            on_primary,
            **inside,
            role=cluster.replication.role,
            password=password,
            stack=self._plan.stack,
        )
        rules = [self._hba_rule(address, inside, _after(on_primary, role)) for address in self._clients()]
        for member in self._plan.standbys:
            slot = {"slot": member.slot, "primary_goes": goes, **_primary(inside)}
            files = (context.token_file, context.ca_file, context.passfile)
            member.cleanup_record(context, *files, after=[server], on_primary=slot)
        checks = [
            self._standby(member, inside, on_primary, [*keys, *rules], key_vault, password)
            for member in self._plan.standbys
        ]
        self._register([server, *keys, role, *rules, *checks])

    @property
    def _vault_url(self) -> str:
        """As the servers see it."""
        return self._plan.cluster.vault.address_from_servers or self._plan.vault_address.address

    @property
    def _mount_stays(self) -> bool:
        """An adopted primary goes on after the stack, and its server key can never be unset: without key and token it could not
        start again."""
        return not self._plan.cluster.disposable or self._plan.primary.declared.adopt

    def _key_vault(self, password: Output[str]) -> KeyVault:
        declared = self._plan.cluster.vault
        provider = vault.Provider(
            f"{self._plan.name}-vault",
            address=self._plan.vault_address.address,
            token=self._plan.vault_address.token,
            ca_cert_file=self._plan.vault_address.ca,
            namespace=self._plan.vault_address.namespace,
            skip_child_token=True,
            max_retries=0,  # each resource would try for itself, and a Vault that is down be told after half a minute
            opts=self._around.child(),
        )
        return KeyVault(
            self._plan.name,
            address=self._plan.vault_address,
            names=self._plan.vault_names,
            keep=self._mount_stays,
            keep_primary=self._plan.primary.declared.adopt,
            protect=self._plan.cluster.protect,
            named=self._around.named,
            servers={
                member.name: "primary" if member is self._plan.primary else "standby" for member in self._plan.members
            },
            token_period_hours=int(declared.token_period.removesuffix("h")),
            password=password,
            opts=self._around.child(providers=[provider]),
        )

    def _keys(self, inside: dict[str, Any], key_vault: KeyVault, opts: ResourceOptions) -> list[Resource]:
        """Extension → key provider → principal key → what it is set for, in the order that pg_tde needs; the last of them."""
        cluster, primary, provider = self._plan.cluster, self._plan.primary, self._plan.cluster.vault.provider
        here, named = {**inside, "database": cluster.database}, self._around.named
        last: Resource = resources.Extension(named(f"pg_tde in {cluster.database}"), opts, **here)
        last = resources.KeyProvider(
            named(provider),
            _after(opts, last),
            **here,
            provider=provider,
            url=self._vault_url,
            mount_path=key_vault.mount,
            # Counted from PGDATA, so that it is the same on every server.
            token_path=f"../{self._around.token_file}",
            ca_path=f"../{self._around.ca_file}" if self._around.ca_file else "",
            namespace=self._plan.vault_address.namespace or "",
            existing=self._plan.cluster.vault.existing,
            mount_stays=self._mount_stays,
            adopted=primary.declared.adopt,
        )
        last = resources.PrincipalKey(
            named(self._plan.key),
            _after(opts, last),
            **here,
            key=self._plan.key,
            provider=provider,
            cipher=cluster.cipher,
        )
        standbys = [(member.placement.address, str(member.placement.data)) for member in self._plan.standbys]
        for scope in sorted(cluster.key.scope, reverse=True):  # the server's first: a default alone would set both
            last = resources.KeyBinding(
                named(f"{scope} key"),
                _after(opts, last),
                **here,
                scope=scope,
                key=self._plan.key,
                provider=provider,
                standbys=standbys,
                slots=[member.slot for member in self._plan.standbys],
                adopted=primary.declared.adopt,
            )
        last = resources.WalEncryption(
            named(f"WAL of {primary.name}"),
            _after(opts, last),
            **inside,
            name=primary.name,
            binaries=str(primary.placement.binaries),
            wal_encrypt="on" if cluster.wal_encryption else "off",
            restart=primary.declared.restart,
            adopted=primary.declared.adopt,
        )
        return [last]

    def _clients(self) -> list[str]:
        """Where standbys connect from, each once."""
        return list(dict.fromkeys(one for member in self._plan.standbys for one in self._clients_of(member)))

    def _clients_of(self, standby: Member) -> Sequence[str]:
        return standby.placement.replication_sources or networks(self._plan.primary.placement.replication_host)

    def _databases(self, *standbys: Member) -> list[str]:
        """The database that these log in to: those that synchronize the primary's slots need one."""
        syncs = [member.declared.settings.get("sync_replication_slots", "off") for member in standbys]
        return [] if all(map(is_off, syncs)) else [self._plan.cluster.database]

    def _hba_rule(self, address: str, inside: dict[str, Any], opts: ResourceOptions) -> resources.HbaRule:
        role = self._plan.cluster.replication.role
        return resources.HbaRule(
            self._around.named(f"{role} from {address}"),
            opts,
            **inside,
            connection_type="hostssl" if self._plan.cluster.replication.encrypted else "host",
            databases=[
                "replication",
                *self._databases(*(n for n in self._plan.standbys if address in self._clients_of(n))),
            ],
            role=role,
            address=address,
        )

    def _standby(
        self,
        member: Member,
        inside: dict[str, Any],
        on_primary: ResourceOptions,
        ready: Sequence[Resource],
        key_vault: KeyVault,
        password: Output[str],
    ) -> resources.ReplicationCheck:
        replication, primary, placement, context = (
            self._plan.cluster.replication,
            self._plan.primary,
            member.placement,
            self._around,
        )
        claimed = _after(on_primary, member.ready[0])
        databases = self._databases(member)
        slot = resources.ReplicationSlot(
            context.named(member.slot),
            claimed,
            **inside,
            slot=member.slot,
            stack=self._plan.stack,
            standby_host=placement.address,
            standby_directory=str(placement.data),
        )
        upstream = Upstream(
            host=primary.placement.replication_host,
            port=primary.placement.port,
            role=replication.role,
            tls=replication.tls,
            root_certificate=replication.root_certificate,
            passfile=member.beside_data(context.passfile),
        )
        pgpass = resources.HostFile(
            context.named(f"{member.name}-pgpass"),
            context.child(depends_on=member.ready),
            host=placement.address,
            path=upstream.passfile,
            content=password.apply(lambda value: passfile(replication.role, value, databases).decode()),
        )
        files = member.vault_files(context, key_vault.tokens[member.name])
        encrypt_wal = self._plan.cluster.wal_encryption and self._plan.in_force
        directory = resources.ClonedDirectory(
            context.named(member.name),
            context.child(depends_on=[slot, pgpass, *files, *ready]),
            **member.directory(context),
            origin=f"base backup of {primary.name}",
            upstream=upstream.model_dump(by_alias=True, exclude_none=True),
            slot=member.slot,
            encrypted=self._plan.in_force,
            encrypt_wal=encrypt_wal,
            cipher=self._plan.cluster.cipher,
            **_primary(inside),
            urn=self._urn_of_child(resources.ClonedDirectory, context.named(member.name)),
        )
        parameters = {
            "primary_conninfo": upstream.conninfo(member.name, *databases),
            "primary_slot_name": member.slot,
        }
        if encrypt_wal:
            parameters["pg_tde.wal_encrypt"] = "on"
        server = member.server(context, directory, context.child(depends_on=[directory, *files]), parameters)
        primary_place = {name: value for name, value in _primary(inside).items() if name != "primary_identifier"}
        return resources.ReplicationCheck(
            context.named(member.name),
            context.child(depends_on=[server]),
            **placement.location,
            system_identifier=directory.system_identifier,
            made_at=directory.made_at,
            standby=member.name,
            slot=member.slot,
            **primary_place,
            database=self._plan.cluster.database,
            encryption=self._plan.in_force,
            key=self._plan.key if self._plan.in_force else "",
            vault=self._vault_url if self._plan.in_force else "",
        )

    def _urn_of_child(self, kind: type[Managed], name: str) -> Output[str]:
        """Its URN, whatever components this one is in. Without the dependency that the component's own URN has as an output:
        who depends on a component depends on all its children."""
        mine = self.urn
        known: Output[str | None] = Output(set(), mine.future(), mine.is_known())

        def below(urn: str | None) -> str:
            stack, project, types, _ = (urn or "").split("::", 3)
            return f"{stack}::{project}::{types}${kind.token()}::{name}"

        return known.apply(below)

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


def _after(opts: ResourceOptions, resource: Resource) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=[resource]))


def _primary(inside: dict[str, Any]) -> dict[str, Any]:
    """The primary, as a resource of another server knows it."""
    return {
        "primary_host": inside["host"],
        "primary_directory": inside["data_directory"],
        "primary_identifier": inside["system_identifier"],
    }
