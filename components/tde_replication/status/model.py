"""The state of a cluster at one moment, as plain data. `--json` shows it with these names, in camel case.

None stands for what a server does not tell. Sizes are bytes, times are seconds.
"""

from typing import Literal

from pydantic import AwareDatetime

from tde_replication.status.backups import Stanza
from tde_replication.status.fact import Fact

Role = Literal["primary", "standby"]


class Lag(Fact):
    """How far a standby is behind the server that it streams from."""

    bytes: int | None = None
    seconds: float | None = None
    """None where the server has measured none: a standby that has everything reports none."""


class Sender(Fact):
    """A WAL sender: one row of pg_stat_replication."""

    application_name: str
    client: str | None = None
    """Address of the client; None for a socket."""
    slot: str | None = None
    state: str
    """startup, catchup, streaming, backup or stopping."""
    sync_state: str = "async"
    """async, potential, sync or quorum."""
    write: Lag = Lag()
    flush: Lag = Lag()
    replay: Lag = Lag()


class Slot(Fact):
    """A physical replication slot."""

    name: str
    active: bool
    wal_status: str | None = None
    """reserved, extended, unreserved or lost; None: it reserves nothing yet."""
    safe_wal_bytes: int | None = None
    """WAL that may still be written before the slot can be lost; None: no limit is set."""
    held_back_bytes: int | None = None
    """WAL that the server keeps for it."""
    invalidation_reason: str | None = None
    synced: bool = False
    """Whether it is a copy of the primary's slot on a standby."""


class Receiver(Fact):
    """A standby's WAL receiver."""

    status: str
    host: str | None = None
    port: int | None = None
    slot: str | None = None


class Replay(Fact):
    """How a standby replays."""

    paused: str
    """not paused, pause requested or paused."""
    delay: float
    """recovery_min_apply_delay."""
    last_transaction_age: float | None = None
    """Age of the last replayed transaction; it grows while nobody writes."""


class Archiver(Fact):
    mode: str
    """archive_mode."""
    archived: int = 0
    failed: int = 0
    failing: bool = False
    """Whether the newest attempt failed."""
    last_archived_age: float | None = None
    last_failed_wal: str | None = None


class Backup(Fact):
    """The newest base backup of which the server has a history file: only a primary that archives its WAL keeps one."""

    file: str
    age: float
    """Since the backup ended."""
    label: str | None = None
    """What its maker called it."""


class Instance(Fact):
    """What a running server says of itself."""

    version: str
    version_number: int
    system_identifier: str
    in_recovery: bool
    timeline: int
    uptime: float
    lsn_bytes: int | None = None
    """Position in the WAL: written by a primary, received by a standby."""
    senders: tuple[Sender, ...] = ()
    slots: tuple[Slot, ...] = ()
    receiver: Receiver | None = None
    replay: Replay | None = None
    archiver: Archiver
    last_backup: Backup | None = None
    synchronous_standby_names: str = ""
    checksums: bool
    checksum_failures: int | None = None
    tde_loaded: bool
    """Whether the server has loaded the library of pg_tde."""
    wal_encrypted: bool = False
    cipher: str | None = None
    wal_segment_bytes: int | None = None
    wal_block_bytes: int | None = None
    databases: tuple[str, ...] = ()
    """Those that take connections and are no templates."""
    closed_databases: tuple[str, ...] = ()
    """Those that take no connections."""

    @property
    def role(self) -> Role:
        return "standby" if self.in_recovery else "primary"


class Provider(Fact):
    name: str
    type: str
    address: str | None = None
    mount: str | None = None


class Key(Fact):
    """A principal key that is set."""

    scope: str
    """server, default, or the name of a database that has a key of its own."""
    name: str
    provider: str
    since: AwareDatetime | None = None
    """When it was set on this server."""
    made: AwareDatetime | None = None
    """When Vault got it."""
    problem: str | None = None
    """What the server said when it opened the key just now; "": it opened it; None: it was not asked to."""
    lost: bool = False
    """Whether the key is gone from Vault or replaced there."""


class Encryption(Fact):
    """pg_tde on one server."""

    version: str
    """As pg_tde says it."""
    stand_in: bool = False
    """Whether it is this project's double for tests, which encrypts nothing."""
    providers: tuple[Provider, ...] = ()
    keys: tuple[Key, ...] = ()


class Table(Fact):
    name: str
    bytes: int


class Sample(Fact):
    """The first file of an encrypted table."""

    name: str
    path: str
    """Below the data directory."""
    bytes: int
    block: int
    """Bytes of a page."""


class Database(Fact):
    """The relations of one database. Size and encryption are the same on every server, so one server is asked."""

    name: str
    total_bytes: int = 0
    encrypted_bytes: int = 0
    clear_bytes: int = 0
    """Of tables, their indexes and sequences; without system catalogs."""
    catalog_bytes: int = 0
    """System catalogs: always in clear."""
    unknown_bytes: int = 0
    """Of tables that somebody has locked."""
    clear_tables: tuple[Table, ...] = ()
    """The largest tables in clear that the stack file does not declare so (`encrypted: false`)."""
    clear_table_count: int = 0
    declared_clear_count: int = 0
    free_sequences: int = 0
    """How many sequences belong to no table: pg_tde leaves those in clear."""
    samples: tuple[Sample, ...] = ()
    """The largest encrypted tables, of which each server's files are looked at (`OnDisk`)."""
    extension: str | None = None
    """Version of the extension pg_tde there; None: it is not there."""
    key: Key | None = None
    problem: str = ""
    """Why it could not be asked."""


class OnDisk(Fact):
    """What a server's files show that are encrypted by its own account, read just now."""

    pages: int = 0
    """How many pages of tables have been read; what is not written yet shows nothing, and does not count."""
    tables: int = 0
    """Of how many tables these are."""
    in_clear: tuple[str, ...] = ()
    """The tables, with their databases, of which one of these pages is in clear."""
    wal: Literal["encrypted", "in clear", "not known"] = "not known"
    """Its newest page of WAL, where its WAL is encrypted by its own account."""
    problem: str = ""
    """Why they could not be read."""


class Token(Fact):
    """A server's Vault token, by its accessor."""

    seconds_left: int | None = None
    period: int | None = None
    gone: bool = False
    """Whether Vault does not know it any more."""
    problem: str = ""
    """Why Vault could not be asked."""


State = Literal["running", "not accepting connections", "down", "absent", "unknown"]


class Server(Fact):
    """One server of the stack file, as it is found."""

    name: str
    declared: Role
    declared_upstream: str | None = None
    """The server that the stack file has it stream from; None for the primary."""
    address: str
    """Host and port for the person who asks."""
    slot: str
    """The name of its slot on the server that it streams from."""
    state: State
    problem: str = ""
    """Why it is not running, or cannot be asked."""
    instance: Instance | None = None
    replaced: str = ""
    """What it runs with and packages have replaced on disk since; empty: nothing, or not known."""
    encryption: Encryption | None = None
    encryption_problem: str = ""
    """Why `encryption` is not known, or that this server does not encrypt."""
    encryption_unknown: bool = False
    """Whether `encryption_problem` says that it could not be asked."""
    on_disk: OnDisk | None = None
    """None where there is nothing encrypted to look at."""
    token: Token | None = None

    @property
    def writes(self) -> bool:
        """Whether it takes writes."""
        return self.instance is not None and not self.instance.in_recovery


class Snapshot(Fact):
    stack: str
    time: AwareDatetime
    encryption: Literal["required", "if-available", "off"]
    """As the stack file declares it; so are the next three."""
    wal_encryption: bool
    enforced: tuple[str, ...] = ()
    """The databases in which all new tables are declared to be encrypted (`enforceEncryption`)."""
    primary: str
    rotate_after: str | None = None
    """How old a principal key may get: "90d"."""
    servers: tuple[Server, ...]
    databases: tuple[Database, ...] = ()
    databases_of: str | None = None
    """The server that `databases` were asked from."""
    stanza: Stanza | None = None

    @property
    def writers(self) -> tuple[Server, ...]:
        return tuple(server for server in self.servers if server.writes)

    @property
    def keys_made(self) -> dict[str, AwareDatetime]:
        """When Vault got each principal key that a server uses, as far as that is known."""
        keys = (key for server in self.servers if server.encryption for key in server.encryption.keys)
        return {key.name: key.made for key in keys if key.made}

    def named(self, name: str) -> Server:
        return next(server for server in self.servers if server.name == name)
