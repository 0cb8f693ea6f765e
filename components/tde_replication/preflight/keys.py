"""What running servers have against the stack file's keys and cipher: told before anything is planned."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from tde_replication import hosts, settings
from tde_replication.contradictions import shown
from tde_replication.errors import UserError
from tde_replication.hosts.placement import Placement
from tde_replication.parallel import parallel_map
from tde_replication.postgres.cipher import OLDEST, PARAMETER, cipher_in_force
from tde_replication.postgres.pg_tde import PgTde, is_loaded
from tde_replication.postgres.principal_key import KeyInUse, keys_in_use
from tde_replication.postgres.session import server_session
from tde_replication.unasked import could_not_ask, unless_new
from tde_replication.vault.key_age import NewestKey

ENCRYPTED_TABLES = (
    "SELECT count(*), pg_size_pretty(coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)) FROM pg_class "
    "JOIN pg_am ON pg_am.oid = relam WHERE amname = 'tde_heap' AND relkind IN ('r', 'm')"
)


def check_keys_in_use(cluster: settings.Cluster, primary: Placement, key: str) -> list[str]:
    """A key that is gone from Vault, whatever the stack file would set in its place; and one of another length than the cipher
    needs. Also of databases that have one of their own."""
    lost: list[str] = []
    others: list[str] = []
    for database in dict.fromkeys([cluster.database, *sorted(cluster.keys)]):
        used = _in_use(primary, database)
        lost += [f"{_setting(cluster, one, database)}: {one.lost}" for one in used if one.lost]
        others += _of_another_length(cluster, used, key, database)
    return list(dict.fromkeys(lost)) or list(dict.fromkeys(others))


def _in_use(primary: Placement, database: str) -> list[KeyInUse]:
    host = hosts.host(primary.address)
    try:
        with server_session(host, primary.data, "cluster.key", database) as server:
            return list(keys_in_use(PgTde(server)))
    except UserError as why:
        unless_new(host, primary.data, f"whether the keys that database {database} uses are still in Vault", why)
        return []


def _setting(cluster: settings.Cluster, used: KeyInUse, database: str) -> str:
    of_database = used.scope == "database" and database in cluster.keys
    return f"cluster.keys.{shown(database)}.name" if of_database else "cluster.key.name"


def _of_another_length(cluster: settings.Cluster, used: Sequence[KeyInUse], key: str, database: str) -> Iterator[str]:
    wanted = dict.fromkeys(map(str, cluster.key.scope), key)
    if own := cluster.keys.get(database):
        wanted["database"] = own.name
    for one in used:
        rotated = wanted.get(one.scope, one.name) != one.name
        if one.cipher and one.cipher != cluster.cipher and not rotated:
            how = f"set key.name to another name too (a rotation), with {one.scope} in key.scope"
            if one.scope == "database":
                how = f"set keys.{shown(database)}.name to another name too (a rotation)"
            yield (
                f"cluster.cipher: principal key {one.name}, which is the {one.scope} key, has the length for {one.cipher} and "
                f"keeps it. For {cluster.cipher}, {how}"
            )


def check_own_keys(cluster: settings.Cluster, keys: Sequence[str]) -> list[str]:
    """Databases with a key that is not theirs alone among all `keys` of the stack: they would be rotated with the other one."""
    return [
        f"cluster.keys.{shown(database)}.name: {key.name} is used twice: choose a name for the key of this database alone"
        for database, key in sorted(cluster.keys.items())
        if keys.count(key.name) > 1
    ]


def notice_of_rotation(cluster: settings.Cluster, newest: NewestKey, key: str) -> list[str]:
    """That the newest key is older than the stack file lets it get, and `key` takes its place."""
    due = newest.due(cluster.key.rotate_after)
    if key == newest.name or not due:
        return []
    what = (
        f"key {newest.name} is due for rotation: it was created in Vault on {newest.made:%Y-%m-%d}, and key.rotateAfter: "
        f"{cluster.key.rotate_after} expired at {due:%Y-%m-%d %H:%M} UTC. `up` makes key {key} and rotates to it; {newest.name} "
        "stays in Vault, because backups need it"
    )
    return [what]


def check_cipher(cluster: settings.Cluster, places: Sequence[str], placements: Sequence[Placement]) -> list[str]:
    """Servers whose pg_tde knows no other cipher than its own would go on with that one, without a word."""
    if cluster.cipher == OLDEST:
        return []

    def too_old(placement: Placement) -> bool:
        host = hosts.host(placement.address)
        try:
            with server_session(host, placement.data, "cluster.cipher") as server:
                return is_loaded(server) and not cipher_in_force(server)
        except UserError as why:
            unless_new(
                host, placement.data, f"whether pg_tde of the server in {placement.data} knows {cluster.cipher}", why
            )
            return False

    return [
        f"cluster.cipher: {cluster.cipher} needs pg_tde 2.2 or newer, and the server of {place} has an older one: install a "
        f"newer one, or write cipher: {OLDEST}"
        for place, old in zip(places, parallel_map(too_old, placements), strict=True)
        if old
    ]


def check_weaker_cipher(cluster: settings.Cluster, primary: Placement, token: str) -> list[str]:
    """A server that is to be adopted, and encrypts with more than the default that nobody wrote down."""
    host = hosts.host(primary.address)
    if not cluster.primary_server.adopt or "cipher" in cluster.model_fields_set:
        return []
    try:
        if host.status(PurePosixPath(token)):
            return []  # it was adopted by an earlier `up`
        with server_session(host, primary.data, f"{cluster.primary_server.place}.adopt") as server:
            found = cipher_in_force(server)
    except UserError as unknown:
        could_not_ask("the cipher of the server that is to be adopted", unknown)
        return []
    if found in {None, cluster.cipher}:
        return []
    why = f"{PARAMETER} is {found} on the server that is to be adopted, and the default is {cluster.cipher}"
    return [f"cluster.cipher: missing; {why}: set the one to use"]


def notices_of_cipher(cluster: settings.Cluster, primary: Placement) -> list[str]:
    """What another cipher leaves as it is: told before it is in force."""
    host = hosts.host(primary.address)
    try:
        with server_session(host, primary.data, "cluster.cipher") as server:
            found = cipher_in_force(server)
            if found in {None, cluster.cipher}:
                return []
            databases = [
                name for (name,) in server.rows("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")
            ]
        made = [text for name in databases if (text := _made(primary, name))]
    except UserError as why:
        unless_new(host, primary.data, "what keeps its former cipher", why)
        return []
    if not made:
        return []
    what = (
        f"cipher: {cluster.cipher} is for what is made from now on. What was made with tde_heap before this `up` has ended keeps "
        f"the cipher that it was made with ({found} until now), on each server for itself, until it is rewritten (VACUUM FULL): "
        f"{', '.join(made)}. pg_tde has no function that shows the cipher of a table"
    )
    return [what]


def _made(primary: Placement, database: str) -> str:
    """The encrypted tables of one database; empty where it has none."""
    with server_session(hosts.host(primary.address), primary.data, "cluster.cipher", database) as server:
        count, size = server.row(ENCRYPTED_TABLES) or (0, "")
    tables = "1 table" if count == 1 else f"{count} tables"
    return f"{tables} ({size} with indexes) in database {database}" if count else ""
