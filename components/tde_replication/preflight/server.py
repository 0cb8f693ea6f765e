"""What the machines themselves have against a stack file, looked up without touching anything."""

import stat
from collections.abc import Sequence
from pathlib import PurePosixPath

from psycopg import sql

from tde_replication import hosts, settings
from tde_replication.errors import CommandFailed, NoDatabase, Unavailable, UserError
from tde_replication.hosts.base import Host
from tde_replication.hosts.placement import Placement
from tde_replication.postgres.control import control_data
from tde_replication.postgres.marker import MARKER, marker, why_not_ours
from tde_replication.postgres.pg_tde import DATABASE_KEY, DEFAULT_KEY, PROVIDERS, SERVER_KEY, PgTde
from tde_replication.postgres.providers_on_disk import providers
from tde_replication.postgres.session import server_session
from tde_replication.postgres.topology_server import SIGNAL
from tde_replication.postgres.trial import refused_values
from tde_replication.preflight.ports import taken
from tde_replication.unasked import could_not_ask, unless_new
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.names import VaultNames

STAT_DEADLINE = 30.0


def check_server(server: settings.Server, placement: Placement, stack: str, *, is_primary: bool) -> list[str]:
    """Mistakes that only its host can tell; none where it cannot be asked now."""
    place, host, data = server.place, hosts.host(placement.address), placement.data
    try:
        host.look(
            statuses=[data, data.parent, data / "backup_label"],
            contents=[data / MARKER, data / "PG_VERSION"],
            listings=[data, data / "pg_tde"],
            servers=[data],
        )
        found = []
        made = marker(host, data)
        if not server.adopt and made.get("stack") != stack and host.listing(data):
            found.append(f"{place}.dataDirectory: {data} {why_not_ours(made, stack)}")
        elif not (made or server.adopt or placement.in_container) and _is_shared(host, data.parent):
            found.append(
                f"{place}.dataDirectory: every account may write to {data.parent}, and the server's token, password file and "
                "socket lie beside its data: name a directory below one of its own"
            )
        elif not (made or server.adopt or placement.in_container) and _is_mount_point(host, data):
            found.append(
                f"{place}.dataDirectory: {data} is a mount point, and the data directory is put in place by a rename: name a "
                f"directory below it"
            )
        if (of := made.get("name", server.name)) != server.name:
            found.append(
                f"{place}.dataDirectory: {data} is that of server {of}, and a server is not renamed with its data: name "
                f"another one. If it is a copy made by hand, move it away, and `up` clones it again"
            )
        if (made or server.adopt) and (mistake := _of_another_version(host, placement)):
            found.append(f"{place}.{placement.version_setting}: {mistake}")
        if not (made or server.adopt or placement.in_container):
            found += [
                f"{place}.settings: {wrong}" for wrong in refused_values(host, placement.binaries, server.settings)
            ]
        found += taken(server, placement, stack, is_primary=is_primary)
    except Unavailable as why:
        could_not_ask(f"{place}: its data directory and port", why)
        return []
    except UserError as problem:
        return [
            f"{place}.dataDirectory: {host.account} cannot look into {data} ({problem}): name a directory of its own"
        ]
    return found


def _is_shared(host: Host, directory: PurePosixPath) -> bool:
    found = host.status(directory)
    return found is not None and bool(found.mode & stat.S_IWOTH)


def _is_mount_point(host: Host, data: PurePosixPath) -> bool:
    if host.status(data) is None:
        return False
    command = ["stat", "--dereference", "--format=%d", str(data), str(data.parent)]
    try:
        one, other = host.run(command, deadline=STAT_DEADLINE).split()
    except CommandFailed as why:
        could_not_ask(f"whether {data} is a mount point", why)
        return False
    return one != other


def check_failover(servers: Sequence[settings.Server], placements: Sequence[Placement]) -> list[str]:
    """Where the primary is down, a standby that was promoted may hold all that was written since: `up` would clone it again."""
    (first, *standbys), (primary, *others) = servers, placements
    try:
        host = hosts.host(primary.address)
        # One that is a standby, or not there yet, is to become the primary: the topology says what is against that.
        if host.serves(primary.data) or not (host.listing(primary.data) and _was_promoted(first, primary)):
            return []
    except UserError as why:
        could_not_ask(f"whether {first.name} runs", why)
    promoted = [
        (server.place, server.name)
        for server, placement in zip(standbys, others, strict=True)
        if _was_promoted(server, placement)
    ]
    return [
        f"{place}: {name} was promoted (or started without standby.signal), and the primary {first.name} does not run or does "
        f"not answer: {name} may be the only server with what was written since, and `up` would clone it again. Nothing is "
        f"changed. Start {first.name}, and `up` does so; or to go on with {name}, write primary: {name} (see docs/topology.md)"
        for place, name in promoted
    ]


def _was_promoted(server: settings.Server, placement: Placement) -> bool:
    host = hosts.host(placement.address)
    try:
        if not (server.adopt or marker(host, placement.data)) or host.status(placement.data / "backup_label"):
            return False
        if host.status(placement.data / SIGNAL):
            return False  # it was the primary, and is to start as a standby
        return control_data(host, placement.binaries, placement.data).left_recovery
    except UserError as why:
        could_not_ask(f"whether the standby in {placement.data} was promoted", why)
        return False


def _of_another_version(host: Host, placement: Placement) -> str | None:
    """It would not start again with other programs, and be stopped for them where they come with a container."""
    holds = (host.read(placement.data / "PG_VERSION") or b"").decode(errors="replace").strip()
    if not placement.version or not holds.isdecimal() or int(holds) == placement.version:
        return None
    return (
        f"this is PostgreSQL {placement.version}, and the data in {placement.data} is of {holds}, which it cannot read: set it "
        "back. A stack upgrades no server to another major version"
    )


def check_versions(places: Sequence[str], placements: Sequence[Placement]) -> list[str]:
    """A clone by other programs than the primary's would not start."""
    primary = placements[0]
    return [
        f"{place}.{placement.version_setting}: this is PostgreSQL {placement.version}, and the primary's is "
        f"{primary.version}: a standby needs its primary's major version"
        for place, placement in zip(places, placements, strict=True)
        if placement.version and primary.version and placement.version != primary.version
    ]


def check_keys(
    cluster: settings.Cluster, primary: Placement, names: VaultNames, namespace: str, *, in_force: bool
) -> list[str]:
    """What the primary's keys have against the stack file: without them its data cannot be read. A mount that is renamed keeps
    its keys, but a standby that is down would look for them under the old name, and never start; in another namespace, `up`
    would make new ones and remove the former mount. By another key provider, it rotates to keys elsewhere."""
    host = hosts.host(primary.address)
    used, found = [], []
    try:
        with server_session(host, primary.data, "cluster.database", cluster.database) as server:
            tde = PgTde(server)
            query = sql.SQL(
                "SELECT DISTINCT name, options->>'mountPath', trim('/' FROM coalesce(options->>'namespace', '')), key_name "
                "FROM {} JOIN (SELECT provider_id, key_name FROM {} UNION SELECT provider_id, key_name FROM {} "
                "UNION SELECT provider_id, key_name FROM {}) AS used ON id = provider_id"
            ).format(*(tde.table(name) for name in (PROVIDERS, SERVER_KEY, DEFAULT_KEY, DATABASE_KEY)))
            used = server.rows(query)
    except NoDatabase as missing:
        if cluster.primary_server.adopt and in_force:
            found = [f"{missing}: create it there, or name another one"]
    except UserError as unknown:  # no pg_tde is an answer, and told as one
        unless_new(host, primary.data, "where the keys of the running cluster are", unknown)
    if not in_force and (used or _has_keys(host, primary.data)):
        why = "the cluster is encrypted, and without pg_tde its tables can no longer be read"
        return [f"cluster.encryption: {why}: set it back. To have the data in clear, copy it into a new cluster"]
    of_declared = [tuple(place) for provider, *place in used if provider == cluster.vault.provider]
    if others := sorted({key for *_, key in of_declared if not names.covers(key)}):
        found.append(
            f"cluster.key.former: the servers use {', '.join(map(_quoted, others))}, and on an existing mount they may open only "
            f'keys that are declared or named "{names.prefix}…": add {", ".join(others)} to the list'
        )
    declared = {"mount": names.mount, "namespace": namespace.strip("/")}
    for places in sorted({(mount, namespace) for mount, namespace, _ in of_declared}):
        for (setting, wanted), there in zip(declared.items(), places, strict=True):
            if there != wanted:
                found.append(
                    f"cluster.vault.{setting}: the keys of the running cluster are in {_quoted(there)} and stay there, and the "
                    f"stack file says {_quoted(wanted)}: set it back, or name another vault.provider too, and `up` rotates to a "
                    "key there; or, where it is the key provider that was changed by hand, change that back"
                )
    return found


def check_mount_exists(
    vault: VaultAddress, cluster: settings.Cluster, primary: Placement, mount: str, token: str
) -> list[str]:
    """A mount that is gone takes the keys with it: an empty one in its place would hide that, until the next start."""
    host, data = hosts.host(primary.address), primary.data
    try:
        # One that is to be adopted may have keys of its own elsewhere.
        managed = not cluster.primary_server.adopt or host.status(PurePosixPath(token)) is not None
        # Of another key provider, the keys are elsewhere.
        known = [one for one in providers(host, data) if one.name == cluster.vault.provider]
        managed = managed and any(one.option("mountPath").strip("/") == mount for one in known)
    except UserError as unknown:
        could_not_ask("whether the keys of the running cluster are still in Vault", unknown)
        return []
    if not (managed and _has_keys(host, data) and vault.lacks(mount)):
        return []
    why = f"with it the keys of the cluster in {data}: its data can be read as long as the servers run, and not after"
    todo = "restore it from a backup of Vault, or copy the data out now"
    return [f'cluster.vault.mount: "{mount}" is gone from Vault, and {why}. Nothing is made again: {todo}']


def _quoted(name: str) -> str:
    return f'"{name}"' if name else "no namespace"


def _has_keys(host: Host, data: PurePosixPath) -> bool:
    """Whether pg_tde has files of keys in a data directory: of the server, of the default, or of a database."""
    try:
        return any(name.endswith("_keys") for name in host.listing(data / "pg_tde"))
    except UserError as why:
        could_not_ask(f"whether {data} has keys of pg_tde", why)
        return False
