"""The configuration parameters of each server. They are merged here, and nowhere else."""

from collections.abc import Mapping

from tde_replication import settings
from tde_replication.hosts.placement import Placement
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.guc import is_off
from tde_replication.postgres.synchronous import PARAMETER as SYNCHRONOUS, Synchronous
from tde_replication.postgres.upstream import Upstream
from tde_replication.values import slot_name

STANDBY_DEFAULTS = {"wal_retrieve_retry_interval": "1s"}
"""Parameters of a standby that a person's own value outranks: it follows again soon after its primary was restarted."""


def parameters(
    cluster: settings.Cluster,
    server: settings.Server,
    placement: Placement,
    upstream: Upstream | None,
    *,
    encrypted: bool,
) -> dict[str, str]:
    """Of one server, each outranked by the next: defaults of a standby, what all servers follow, a person's own values, what its
    host and replication need. `upstream`: what it streams from; None: it is the primary."""
    own = {**followed(cluster), **server.settings, **_needed(cluster, server, placement, encrypted=encrypted)}
    if upstream is None:
        return own
    return {**STANDBY_DEFAULTS, **own, **_streaming(cluster, server, upstream)}


def followed(cluster: settings.Cluster) -> dict[str, str]:
    """What servers declare of the parameters that no standby may have lower than its primary: the highest of each. So a
    switchover changes none of them."""
    highest: dict[str, str] = {}
    for server in cluster.members:
        for name in settings.FOLLOWED_PARAMETERS & server.settings.keys():
            value, known = server.settings[name], highest.get(name)
            if known is None or (value.isdecimal() and known.isdecimal() and int(value) > int(known)):
                highest[name] = value
    return highest


def _needed(
    cluster: settings.Cluster, server: settings.Server, placement: Placement, *, encrypted: bool
) -> dict[str, str]:
    """Whichever part the server has. An adopted one keeps what is no matter of replication."""
    needed = {"max_slot_wal_keep_size": cluster.replication.max_slot_wal_keep_size}
    if not server.adopt:
        needed |= {
            "port": str(placement.port),
            "listen_addresses": ",".join(server.listens),
            "cluster_name": server.name,
            **placement.parameters,
        }
    libraries = server.settings.get("shared_preload_libraries")
    if encrypted:
        needed["pg_tde.cipher"] = cluster.cipher
        needed["shared_preload_libraries"] = f"{libraries},pg_tde" if libraries else "pg_tde"
    return needed | _archiving(cluster, placement, encrypted=encrypted)


def _archiving(cluster: settings.Cluster, placement: Placement, *, encrypted: bool) -> dict[str, str]:
    """The same on every server, so that a switchover changes nothing: a primary does not use the one command, a standby not the
    other."""
    if not cluster.archive:
        return {}
    stanza, data = cluster.archive.pgbackrest.stanza, placement.data
    wrapper = placement.binaries if cluster.wal_encryption and encrypted else None
    return {
        pgbackrest.MODE: "on",
        pgbackrest.COMMAND: pgbackrest.archive_command(stanza, data, wrapper),
        pgbackrest.RESTORE: pgbackrest.restore_command(stanza, data, wrapper),
    }


def _streaming(cluster: settings.Cluster, server: settings.Server, upstream: Upstream) -> dict[str, str]:
    database = cluster.database if synchronizes_slots(server) else None
    delay = {"recovery_min_apply_delay": server.apply_delay} if server.apply_delay else {}
    return {
        **delay,
        "primary_conninfo": upstream.conninfo(server.name, database),
        "primary_slot_name": slot_name(server.name),
    }


def synchronizes_slots(server: settings.Server) -> bool:
    """Then it needs a database to log in to on what it streams from."""
    return not is_off(server.settings.get("sync_replication_slots", "off"))


def set_in_all(
    own: Mapping[str, str], cluster: settings.Cluster, synchronous: Synchronous | None, *, encrypted: bool
) -> dict[str, str]:
    """`own`, and the parameters that other resources set on the same server."""
    return {
        **own,
        **({"pg_tde.wal_encrypt": "on"} if cluster.wal_encryption and encrypted else {}),
        **({SYNCHRONOUS: synchronous.names()} if synchronous else {}),
    }
