"""Asks the servers, all at once: one session and one query for each server, and one for each database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from psycopg import sql
from pydantic import ValidationError

from tde_replication import hosts
from tde_replication.errors import LoginFailed, NoDatabase, NoExtension, UserError
from tde_replication.hosts import facts
from tde_replication.hosts.base import Host, Postmaster
from tde_replication.hosts.placement import Placement
from tde_replication.parallel import parallel_map
from tde_replication.postgres.pg_tde import DEFAULT_KEY, PROVIDERS, SERVER_KEY, PgTde
from tde_replication.postgres.principal_key import keys_in_use
from tde_replication.postgres.relations import of_database
from tde_replication.postgres.replaced_programs import replaced
from tde_replication.postgres.session import Session, server_session
from tde_replication.postgres.tables import patterns
from tde_replication.status.archive import stanza
from tde_replication.status.declared import Declared, DeclaredServer
from tde_replication.status.key_ages import with_ages
from tde_replication.status.model import Database, Encryption, Instance, Key, OnDisk, Provider, Server, Snapshot, State
from tde_replication.status.on_disk import on_disk
from tde_replication.status.queries import INSTANCE, LABEL, MONITOR, SUPERUSER
from tde_replication.status.tokens import tokens
from tde_replication.values import slot_name

STATEMENT_SECONDS = 20
"""For one question; a server that takes longer is not well, and is shown so."""
LIMITS = (
    "SELECT set_config('default_transaction_read_only', 'on', false), set_config('lock_timeout', '2s', false), "
    f"set_config('statement_timeout', '{STATEMENT_SECONDS}s', false)"
)
NO_PG_TDE = "this server has no pg_tde"


def observe(declared: Declared) -> Snapshot:
    """The cluster now. A server that cannot be asked says why; nothing is raised for it."""
    encrypts = declared.cluster.encryption != "off" and any(
        server.placement is None or server.placement.has_pg_tde is not False for server in declared.servers
    )
    with ThreadPoolExecutor(1) as background, facts.shared():
        asked = background.submit(copy_context().run, tokens, declared) if encrypts else None
        servers = parallel_map(lambda server: _server(server, declared), declared.servers)
        databases, source = _databases(declared, servers)
        servers = parallel_map(lambda server: _with_files(server, declared, databases), servers)
        found_stanza = stanza(declared, servers)
        if asked and any(server.encryption for server in servers):
            found = asked.result()
            servers = [server.model_copy(update={"token": found.get(server.name)}) for server in servers]
            servers = with_ages(declared, servers)
    return Snapshot(
        stack=declared.stack,
        time=datetime.now(UTC),
        encryption=declared.cluster.encryption,
        wal_encryption=declared.cluster.wal_encryption,
        enforced=tuple(declared.cluster.all_databases) if declared.cluster.enforce_encryption else (),
        primary=declared.cluster.primary,
        rotate_after=declared.cluster.key.rotate_after,
        servers=tuple(servers),
        databases=tuple(databases),
        databases_of=source,
        stanza=found_stanza,
    )


def _server(declared: DeclaredServer, cluster: Declared) -> Server:
    placement = declared.placement
    if placement is None:
        return _silent(declared, "unknown", declared.problem)
    data, running = placement.data, None
    try:
        host = hosts.host(placement.address)
        host.look(statuses=[data], servers=[data])
        running = host.postmaster(data)
        if running is None or running.lost:
            return _silent(declared, *_not_running(host, data, running))
        with limited_session(host, data, f"server {declared.name}") as session:
            instance = _instance(session)
            outdated = _replaced(host, placement, session)
    except UserError as why:
        closed = isinstance(why, LoginFailed) and running and not running.ready
        return _silent(declared, "not accepting connections" if closed else "unknown", str(why))
    except ValidationError:
        return _silent(declared, "unknown", f"server {declared.name}: its answer is not as expected")
    found = _silent(declared, "running", "").model_copy(update={"instance": instance, "replaced": outdated})
    return _with_encryption(found, instance, host, data, cluster.cluster.database)


def _instance(session: Session) -> Instance:
    session.rows(MONITOR)
    try:
        found = Instance.model_validate_json(session.value(INSTANCE))
    finally:
        session.rows(SUPERUSER)  # the connection is kept for the questions that come
    if not (backup := found.last_backup):
        return found
    labelled = backup.model_copy(update={"label": session.value(LABEL, [backup.file])})
    return found.model_copy(update={"last_backup": labelled})


def _replaced(host: Host, placement: Placement, session: Session) -> str:
    """Empty, too, where that is not known: nothing else of the server depends on it."""
    try:
        return replaced(host, placement.binaries, placement.data, session)
    except UserError:
        return ""


def _silent(declared: DeclaredServer, state: State, problem: str) -> Server:
    """One of which no more is known."""
    return Server(
        name=declared.name,
        declared="primary" if declared.is_primary else "standby",
        declared_upstream=declared.upstream,
        address=_address(declared.placement),
        slot=slot_name(declared.name),
        state=state,
        problem=problem,
    )


def _address(placement: Placement | None) -> str:
    if placement is None:
        return ""
    host, port = placement.seen_at
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _not_running(host: Host, data: PurePosixPath, running: Postmaster | None) -> tuple[State, str]:
    if running:
        return "down", f"its data directory {data} was removed or replaced while it ran: nobody can connect to it"
    if host.status(data) is None:
        return "absent", f"there is no data directory {data}"
    return "down", f"no server runs on {data}"


@contextmanager
def limited_session(host: Host, data: PurePosixPath, purpose: str, database: str | None = None) -> Iterator[Session]:
    """One that can change nothing, and that waits neither long nor for locks."""
    with server_session(host, data, purpose, database) as session:
        session.connection.limit = STATEMENT_SECONDS
        session.rows(LIMITS)
        yield session


def _with_encryption(server: Server, instance: Instance, host: Host, data: PurePosixPath, database: str) -> Server:
    if not instance.tde_loaded:
        return server.model_copy(update={"encryption_problem": NO_PG_TDE})
    try:
        with limited_session(host, data, f"server {server.name}", database) as session:
            found = _encryption(session)
    except NoExtension:
        return server.model_copy(update={"encryption_problem": f"database {database} has no extension pg_tde"})
    except NoDatabase:
        return server.model_copy(update={"encryption_problem": f"the server has no database {database}"})
    except UserError as why:
        return server.model_copy(update={"encryption_problem": str(why), "encryption_unknown": True})
    problem = "no principal key is set" if not found.keys else ""
    return server.model_copy(update={"encryption": found, "encryption_problem": problem})


def _encryption(session: Session) -> Encryption:
    """pg_tde's own account; each key is opened in Vault by the server, as it would be at a start."""
    tde = PgTde(session)
    version = str(session.value(sql.SQL("SELECT * FROM {}").format(tde.table("pg_tde_version"))))
    rows = session.shown(
        sql.SQL("SELECT name, type, options->>'url', options->>'mountPath' FROM {}").format(tde.table(PROVIDERS))
    )
    info = sql.SQL("SELECT {}, key_creation_time FROM {}")
    times = sql.SQL(" UNION ALL ").join(
        [
            info.format(sql.Literal(scope), tde.table(function))
            for scope, function in (("server", SERVER_KEY), ("default", DEFAULT_KEY))
        ]
    )
    since: dict[str, datetime | None] = dict(session.shown(times))
    keys = [
        Key(
            scope=key.scope,
            name=key.name,
            provider=key.provider,
            since=since.get(key.scope),
            problem=key.problem,
            lost=key.lost is not None,
        )
        for key in keys_in_use(tde)
    ]
    return Encryption(
        version=version,
        stand_in="NOT ENCRYPTED" in version,
        providers=tuple(
            Provider(name=name, type=kind, address=_without_login(url), mount=mount) for name, kind, url, mount in rows
        ),
        keys=tuple(keys),
    )


def _without_login(url: str | None) -> str | None:
    """A provider that somebody else made may have a password in its URL."""
    if not url or "@" not in url:
        return url
    return f"{urlsplit(url).scheme}://…@{url.rpartition('@')[2]}"


def _databases(declared: Declared, servers: list[Server]) -> tuple[list[Database], str | None]:
    """Those of a server that takes writes, else of any that answers; and its name."""
    answering = sorted((server for server in servers if server.instance), key=lambda server: not server.writes)
    source = next(iter(answering), None)
    placement = next((one.placement for one in declared.servers if source and one.name == source.name), None)
    if source is None or source.instance is None or placement is None:
        return [], None
    loaded, host, data = source.instance.tde_loaded, hosts.host(placement.address), placement.data
    tables = declared.cluster.tables_by_database

    def ask(name: str) -> Database:
        try:
            with limited_session(host, data, f"database {name}", name) as session:
                query = of_database(_pg_tde(session) if loaded else None, patterns(tables.get(name, [])))
                return Database.model_validate_json(session.value(query))
        except UserError as why:
            return Database(name=name, problem=str(why))
        except ValidationError:
            return Database(name=name, problem=f"database {name}: its answer is not as expected")

    closed = [Database(name=name, problem="it takes no connections") for name in source.instance.closed_databases]
    return [*parallel_map(ask, source.instance.databases), *closed], source.name


def _with_files(server: Server, declared: Declared, databases: list[Database]) -> Server:
    placement = next(one.placement for one in declared.servers if one.name == server.name)
    samples = [
        one.model_copy(update={"name": f"{database.name}.{one.name}"})
        for database in databases
        for one in database.samples
    ]
    if server.instance is None or placement is None or not (samples or server.instance.wal_encrypted):
        return server
    try:
        found = on_disk(hosts.host(placement.address), placement.data, samples, server.instance)
    except UserError as why:
        found = OnDisk(problem=str(why))
    return server.model_copy(update={"on_disk": found})


def _pg_tde(session: Session) -> PgTde | None:
    try:
        return PgTde(session)
    except NoExtension:
        return None
