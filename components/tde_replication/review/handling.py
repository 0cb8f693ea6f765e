"""Values of a resource that only say how it is reached or handled: a change of them is stored, and changes nothing else."""

from collections.abc import Mapping

from tde_replication.postgres import (
    cleanup_record,
    extension,
    hba_rule,
    key_provider,
    principal_key,
    replication_role,
    replication_slot,
    server,
    server_directory,
    topology,
    wal_encryption,
)
from tde_replication.reconciler import Resource

_KINDS: Mapping[str, type[Resource]] = {
    "CleanupRecord": cleanup_record.CleanupRecord,
    "DataDirectory": server_directory.ServerDirectory,
    "Extension": extension.Extension,
    "HbaRule": hba_rule.HbaRule,
    "KeyBinding": principal_key.KeyBinding,
    "KeyProvider": key_provider.KeyProvider,
    "PrincipalKey": principal_key.PrincipalKey,
    "ReplicationRole": replication_role.ReplicationRole,
    "ReplicationSlot": replication_slot.ReplicationSlot,
    "Server": server.Server,
    "Topology": topology.Topology,
    "WalEncryption": wal_encryption.WalEncryption,
}
"""By the type of the resource."""


def is_handling(kind: str, key: str) -> bool:
    """`key`: of an input, with the keys of mappings in it behind dots."""
    known = _KINDS.get(kind)
    if known is None:
        return False
    name = key.partition(".")[0]
    return any(known.model_fields[field].alias == name for field in known.not_compared | known.create_only)
