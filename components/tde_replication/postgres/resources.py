"""The reconcilers as Pulumi resources. Names here are in people's stacks: they are kept for ever."""

from pulumi import Output

from tde_replication.adapter import Managed, Provider
from tde_replication.postgres import (
    adopted_directory,
    adoption,
    cleanup_record,
    complete_cluster,
    database_encryption,
    expiry,
    extension,
    hba_rule,
    host_file,
    key_binding,
    key_provider,
    machine,
    minor_upgrade,
    password,
    principal_key,
    replication_check,
    replication_role,
    replication_slot,
    server,
    server_directory,
    stanza,
    synchronous,
    table_encryption,
    topology,
    wal_encryption,
)
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.rollback import delete_there
from tde_replication.reconciler import Resource


class InServer(Provider):
    """Of what lies inside a running server: one that a killed update has stopped is started for a delete."""

    @staticmethod
    def take_away(last: Resource) -> None:
        assert isinstance(last, OnServer)  # noqa: S101 - for the type checker: the kinds below are
        delete_there(last)


class PasswordProvider(Provider):
    kind = password.Password


class Password(Managed, module="postgres", name="Password"):
    provider = PasswordProvider


class ExpiryProvider(Provider):
    kind = expiry.Expiry


class Expiry(Managed, module="postgres", name="Expiry"):
    provider = ExpiryProvider


class CleanupRecordProvider(Provider):
    kind = cleanup_record.CleanupRecord


ClaimProvider = CleanupRecordProvider
"""Its name in the states of version 0.1.0."""


class CleanupRecord(Managed, module="postgres", name="CleanupRecord"):
    provider = CleanupRecordProvider
    former_type = "postgres:Claim"


class HostFileProvider(Provider):
    kind = host_file.HostFile


class HostFile(Managed, module="postgres", name="HostFile"):
    provider = HostFileProvider


class DataDirectory(Managed):
    """Its id tells which cluster it is of, and which directory of all that were ever at this path."""

    @property
    def system_identifier(self) -> Output[str]:
        return self.id.apply(lambda id_: id_.split()[0])

    @property
    def made_at(self) -> Output[str]:
        return self.id.apply(lambda id_: id_.split()[1])


class ServerDirectoryProvider(Provider):
    kind = server_directory.ServerDirectory


InitializedDirectoryProvider = ClonedDirectoryProvider = ServerDirectoryProvider
"""Its names in the states of version 0.1.0, which had a type for each role."""


class ServerDirectory(DataDirectory, module="postgres", name="DataDirectory"):
    provider = ServerDirectoryProvider
    former_type = "postgres:BaseBackup"


class AdoptedDirectoryProvider(Provider):
    kind = adopted_directory.AdoptedDirectory


class AdoptedDirectory(DataDirectory, module="postgres", name="DataDirectory"):
    provider = AdoptedDirectoryProvider


class ServerProvider(InServer):
    kind = server.Server


class Server(Managed, module="postgres", name="Server"):
    provider = ServerProvider


class ExtensionProvider(InServer):
    kind = extension.Extension


class Extension(Managed, module="postgres", name="Extension"):
    provider = ExtensionProvider


class KeyProviderProvider(InServer):
    kind = key_provider.KeyProvider


class KeyProvider(Managed, module="postgres", name="KeyProvider"):
    provider = KeyProviderProvider


class PrincipalKeyProvider(InServer):
    kind = principal_key.PrincipalKey


class PrincipalKey(Managed, module="postgres", name="PrincipalKey"):
    provider = PrincipalKeyProvider


class KeyBindingProvider(InServer):
    kind = key_binding.KeyBinding


class KeyBinding(Managed, module="postgres", name="KeyBinding"):
    provider = KeyBindingProvider


class WalEncryptionProvider(InServer):
    kind = wal_encryption.WalEncryption


class WalEncryption(Managed, module="postgres", name="WalEncryption"):
    provider = WalEncryptionProvider


class DatabaseEncryptionProvider(InServer):
    kind = database_encryption.DatabaseEncryption


class DatabaseEncryption(Managed, module="postgres", name="DatabaseEncryption"):
    provider = DatabaseEncryptionProvider


class ReplicationRoleProvider(InServer):
    kind = replication_role.ReplicationRole


class ReplicationRole(Managed, module="postgres", name="ReplicationRole"):
    provider = ReplicationRoleProvider


class HbaRuleProvider(InServer):
    kind = hba_rule.HbaRule


class HbaRule(Managed, module="postgres", name="HbaRule"):
    provider = HbaRuleProvider


class TopologyProvider(Provider):
    kind = topology.Topology


class Topology(Managed, module="postgres", name="Topology"):
    provider = TopologyProvider


class ReplicationSlotProvider(InServer):
    kind = replication_slot.ReplicationSlot


class ReplicationSlot(Managed, module="postgres", name="ReplicationSlot"):
    provider = ReplicationSlotProvider


class ReplicationCheckProvider(InServer):
    kind = replication_check.ReplicationCheck


class ReplicationCheck(Managed, module="postgres", name="ReplicationCheck"):
    provider = ReplicationCheckProvider


class SynchronousStandbysProvider(InServer):
    kind = synchronous.SynchronousStandbys


class SynchronousStandbys(Managed, module="postgres", name="SynchronousStandbys"):
    provider = SynchronousStandbysProvider


class TableEncryptionProvider(Provider):
    kind = table_encryption.TableEncryption


class TableEncryption(Managed, module="postgres", name="TableEncryption"):
    provider = TableEncryptionProvider


class StanzaProvider(Provider):
    kind = stanza.Stanza


class Stanza(Managed, module="postgres", name="Stanza"):
    provider = StanzaProvider


class MachineProvider(Provider):
    kind = machine.Machine


class Machine(Managed, module="postgres", name="Machine"):
    provider = MachineProvider


class MinorUpgradeProvider(Provider):
    kind = minor_upgrade.MinorUpgrade


class MinorUpgrade(Managed, module="postgres", name="MinorUpgrade"):
    provider = MinorUpgradeProvider


class AdoptionProvider(Provider):
    kind = adoption.Adoption


class Adoption(Managed, module="postgres", name="Adoption"):
    provider = AdoptionProvider


class CompleteClusterProvider(Provider):
    kind = complete_cluster.CompleteCluster


class CompleteCluster(Managed, module="postgres", name="CompleteCluster"):
    provider = CompleteClusterProvider
