"""What no setting of a cluster has against it alone: mistakes that take two of them, or PostgreSQL's own knowledge."""

import json
import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from tde_replication.host_settings import Ssh
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.guc import is_off
from tde_replication.settings import MANAGED_PARAMETERS, Cluster, Server
from tde_replication.topology_contradictions import of_topology
from tde_replication.values import DATABASE_SETTINGS, DEFAULT_METHOD, ENFORCE, TEMPLATE

DECLARED = {
    "recovery_min_apply_delay": "write applyDelay of the server",
    "synchronous_standby_names": "write synchronous of the cluster",
    ENFORCE: "write enforceEncryption of the cluster",
}
"""Parameters that have a setting of their own."""
DIRECTIVES = {"include", "include_if_exists", "include_dir"}
"""Lines of postgresql.conf that look like parameters and read other files (PostgreSQL documentation, *File Inclusion*)."""


def contradictions(cluster: Cluster) -> list[str]:
    """Mistakes that no field has alone."""
    found = _used_twice(cluster)
    for server in cluster.servers.values():
        found += [f"{server.place}.{mistake}" for mistake in _of_server(server)]
        if cluster.archive:
            found += [
                f"{server.place}.settings.{name}: the stack sets this parameter itself: see archive of the cluster"
                for name in pgbackrest.PARAMETERS
                if name in server.settings
            ]
    found += of_topology(cluster)
    if cluster.expires and not cluster.disposable:
        found.append("cluster.expires: only a disposable cluster may expire: add disposable: true, or remove expires")
    if cluster.expires and cluster.protect:
        found.append("cluster.expires: protect: true keeps anybody from destroying this cluster: remove one of the two")
    replication = cluster.replication
    if replication.tls.startswith("verify") and not replication.root_certificate:
        found.append(f'cluster.replication.rootCertificate: missing, and tls is "{replication.tls}"')
    found += _of_databases(cluster)
    found += _of_keys(cluster)
    found += _of_tables(cluster)
    if cluster.vault.renewal == "timer" and not any(one.kind == "ssh" and not one.adopt for one in cluster.members):
        found.append(
            "cluster.vault.renewal: a timer is for servers on machines reached by ssh that the stack makes, and there are none: "
            "remove it"
        )
    if cluster.wal_encryption and "server" not in cluster.key.scope:
        found.append('cluster.walEncryption: WAL is encrypted with the server key: add "server" to key.scope')
    return found


def _of_databases(cluster: Cluster) -> list[str]:
    found = []
    for name, count in Counter(cluster.all_databases).items():
        if count > 1:
            found.append(f'cluster.databases: "{name}" is named twice (database: counts, too)')
        elif name == "template0":
            place = "database" if name == cluster.database else "databases"
            found.append(f"cluster.{place}: template0 takes no connections: name another one")
    if cluster.database == TEMPLATE:
        found.append(
            "cluster.database: nobody can make a database as long as a session is in template1: name another one, and add "
            "template1 to databases"
        )
    declared = {
        "enforceEncryption": cluster.enforce_encryption,
        "defaultTableAccessMethod": cluster.default_table_access_method,
    }
    for setting in (name for name, value in declared.items() if value):
        if cluster.encryption == "off":
            found.append(f"cluster.{setting}: no table can be encrypted with encryption: off: remove one of the two")
        elif "default" not in cluster.key.scope:
            found.append(f'cluster.{setting}: tables are encrypted with the default key: add "default" to key.scope')
    return found


def _of_keys(cluster: Cluster) -> list[str]:
    """template1 has no key: a database that is made from it gets the default key."""
    return [
        f"cluster.keys.{shown(database)}: a key needs the extension, and database and databases do not name {shown(database)}"
        if database != TEMPLATE
        else f"cluster.keys.{TEMPLATE}: a database that is made from it has the default key: name that database"
        for database in cluster.keys
        if database == TEMPLATE or database not in cluster.all_databases
    ]


def _of_tables(cluster: Cluster) -> list[str]:
    if cluster.tables and cluster.encryption == "off":
        return ['cluster.tables: nothing is rewritten without pg_tde: remove it, or write encryption: "required"']
    names = " or ".join(name for name in cluster.all_databases if name != TEMPLATE)
    found = [
        f'cluster.tables[{number}].database: "{one.database}" is not a database that has the extension (write {names})'
        for number, one in enumerate(cluster.tables)
        if not any(one in patterns for patterns in cluster.tables_by_database.values())
    ]
    found += [
        f"cluster.tables[{number}].encrypted: enforceEncryption lets no table be in clear: remove one of the two"
        for number, one in enumerate(cluster.tables)
        if cluster.enforce_encryption and not one.encrypted
    ]
    of_default_key = cluster.tables_by_database.keys() - cluster.keys.keys()
    encrypts = any(one.encrypted for name in of_default_key for one in cluster.tables_by_database[name])
    if encrypts and "default" not in cluster.key.scope:
        found.append('cluster.tables: tables are encrypted with the default key: add "default" to key.scope')
    return found


def _used_twice(cluster: Cluster) -> list[str]:
    """What each server must have for itself."""
    found, servers = [], list(cluster.servers.values())
    values_of: dict[str, list[Any]] = {
        "port": [cluster.port(server) for server in servers],
        "dataDirectory": [server.data_directory for server in servers],
    }
    for field, values in values_of.items():
        seen: Counter[Any] = Counter()
        for server, value in zip(servers, values, strict=True):
            where = server.machine, value
            seen[where] += value is not None
            if seen[where] > 1:
                shown = f'"{value}"' if isinstance(value, str) else value
                default = field == "port" and not server.port
                why = f"missing; the default for its name is {value}, which another server has" if default else ""
                found.append(f"{server.place}.{field}: {why or f'{shown} is used twice'}")
    above = [
        (server.machine, PurePosixPath(server.data_directory).parent) if server.data_directory else None
        for server in servers
    ]
    found += [
        f"{server.place}.dataDirectory: {parent[1]} holds another server's directory too; each needs a parent directory of its "
        "own for its token and log"
        for server, parent in zip(servers, above, strict=True)
        if parent and above.count(parent) > 1
    ]
    return found


def _of_server(server: Server) -> list[str]:
    found = []
    if isinstance(server.host, Ssh) and len(server.host.jump) > 1 and not server.adopt:
        found.append("host.jump: pulumi-command, which prepares the machine, goes through one jump host")
    for name, value in server.settings.items():
        place = f"settings.{name}"
        if name in DIRECTIVES or not re.fullmatch(r"[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)?", name):
            found.append(f"settings.{shown(name)}: not a valid parameter name")
            continue
        if name in MANAGED_PARAMETERS:
            found.append(f"{place}: the stack sets this parameter itself")
        if name in DECLARED:
            found.append(f"{place}: the stack sets this parameter itself: {DECLARED[name]}")
        if name == DEFAULT_METHOD and value == DATABASE_SETTINGS[name]:
            found.append(
                f"{place}: {value}: in a database without the extension no table could be made: write "
                "defaultTableAccessMethod of the cluster"
            )
        if why := _no_replication(name, value):
            found.append(f"{place}: {value}: {why}")
        if "\n" in value or "\0" in value:
            found.append(f"{place}: a value cannot hold a line break or a zero byte")
        if name == "shared_preload_libraries" and "pg_tde" in value:
            found.append(f"{place}: pg_tde is added by the stack itself: leave it out")
    return found


def shown(name: str) -> str:
    """On one line, whatever is in it."""
    return name if name.isprintable() and name else json.dumps(name)


def _no_replication(parameter: str, value: str) -> str | None:
    """Why a standby could not be cloned, stream or be asked with this value, or no server be set."""
    match parameter:
        case "wal_level" if value.lower() == "minimal":
            return "streaming replication needs replica or logical"
        case "max_wal_senders" | "max_replication_slots" if value.isdecimal() and not int(value):
            return "streaming replication needs at least one for each standby, and another for each clone"
        case "allow_alter_system" if is_off(value):
            return "the stack sets parameters by ALTER SYSTEM"
        case "hot_standby" if is_off(value):
            return "a standby that takes no connections cannot be checked"
        case (
            "recovery_target"
            | "recovery_target_lsn"
            | "recovery_target_name"
            | "recovery_target_time"
            | "recovery_target_xid"
        ):
            return "a standby would end its recovery there, and stop following"
    return None
