"""Every setting of docs/settings.md changed there, and back: by one `up` each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
Places = Mapping[str, Any]
"""What a test has at hand: ports, directories, names."""


@dataclass(frozen=True)
class Setting:
    """`key` as docs/settings.md has it; `edit` changes it in a stack file, of which the former one is the way back."""

    key: str
    edit: Callable[[Document, Places], object]
    encrypted: bool = False
    """Whether it means nothing without pg_tde."""

    def __str__(self) -> str:
        return self.key


def _put(section: str, name: str, value: Any) -> Setting:
    def edit(cluster: Document, places: Places) -> None:
        cluster[section] = {**cluster.get(section, {}), name: value(places) if callable(value) else value}

    return Setting(f"{section}.{name}", edit)


def _of(server: str, name: str, value: Any) -> Setting:
    def edit(cluster: Document, places: Places) -> None:
        found = cluster["servers"]["db1" if server == "primary" else "db2"]
        found[name] = value(places) if callable(value) else value

    return Setting(f"{server}.{name}", edit)


def _another_name(cluster: Document, places: Places) -> None:
    del cluster["servers"]["db2"]
    cluster["servers"]["db9"] = places["standby"]


def _enforced(cluster: Document, _: Places) -> None:
    cluster.update(databases=["there 2", "template1"], enforceEncryption=True)


def _top(**values: Any) -> Setting:
    [name] = values
    return Setting(name, lambda cluster, _: cluster.update(values))


def _in_force(setting: Setting) -> Setting:
    return Setting(setting.key, setting.edit, encrypted=True)


SETTINGS = [
    _put("vault", "mount", "there/and"),
    _put("vault", "addressFromServers", lambda places: places["address"]),
    _put("vault", "ca", lambda places: places["ca"]),
    _put("vault", "tokenPeriod", "24h"),
    _put("replication", "role", "there"),
    _put("replication", "tls", "disable"),
    _put("replication", "maxSlotWalKeepSize", "5GB"),
    _put("replication", "passwordVersion", 2),
    _top(protect=True),
    _top(disposable=False),
    Setting("servers", lambda cluster, places: cluster["servers"].update(db8=places["standby"])),
    Setting("servers", _another_name),
    _of("primary", "port", lambda places: places["ports"][0]),
    _of("primary", "listen", ["127.0.0.1", "localhost"]),
    _of("primary", "restart", "refused"),
    _of("primary", "settings", {"work_mem": "5MB", "max_connections": "90"}),
    _of("primary", "binaries", lambda places: places["binaries"]),
    _top(minorUpgrade="all"),
    _top(synchronous={"standbys": ["db1", "db2"]}),
    _top(rejoin="rewind"),
    _of("standby", "applyDelay", "10ms"),
    _of("standby", "port", lambda places: places["ports"][1]),
    _of("standby", "dataDirectory", lambda places: places["directory"]),
    _of("standby", "address", "127.0.0.0/8"),
    _of("standby", "listen", ["127.0.0.1", "localhost"]),
    _of("standby", "settings", {"work_mem": "6MB", "max_connections": "200"}),
    _of("standby", "binaries", lambda places: places["binaries"]),
    *map(
        _in_force,
        [
            _top(walEncryption=True),
            _top(database="there"),
            Setting("databases", _enforced),
            _top(tables=["*.public.*"]),
            _put("vault", "provider", "there"),
            _put("key", "name", "there"),
            _put("key", "scope", ["server"]),
            Setting("keys.name", lambda cluster, _: cluster.update(keys={"postgres": {"name": "own"}})),
        ],
    ),
]

# What is not changed there and back here, and why.
NEVER = {
    **{
        f"host.{name}": "another way to a machine, or another machine: tests/ssh/test_changes.py"
        for name in (
            *("ssh", "user", "port", "account", "key", "certificate", "knownHosts", "hostKeys", "jump"),
            *("system", "version", "packages", "unit"),
        )
    },
    "host.docker": "another image: tests/docker/test_stack.py",
    "encryption": "tests/engine/test_becoming_encrypted.py; there is no way back",
    **{
        f"tables.{name}": "tests/providers/test_table_encryption.py"
        for name in ("database", "schema", "table", "encrypted")
    },
    "vault": "a section",
    "key": "a section",
    "keys": "a section",
    "replication": "a section",
    "primary": "a switchover: tests/engine/test_switchover.py",
    "expires": "tests/engine/test_reap.py",
    **dict.fromkeys(("archive", "archive.pgbackrest", "archive.pgbackrest.stanza"), "tests/ssh/test_backup.py"),
    "vault.existing": "tests/engine/change.py: refused on a mount of the stack's own",
    "vault.network": "of containers: tests/docker/test_stack.py",
    "vault.renewal": "of machines reached by ssh: tests/kinds/test_same_everywhere.py",
    "vault.name": "another Vault: tests/engine/test_moving.py",
    "vault.namespace": "tests/engine/test_namespace.py",
    "enforceEncryption": "together with databases",
    "defaultTableAccessMethod": "set by enforceEncryption too: tests/providers/test_database_encryption.py",
    "cipher": "what is encrypted keeps its own: tests/engine/change.py",
    "key.rotateAfter": "tests/engine/test_change.py: there, interrupted, and back",
    "key.former": "tests/engine: on an existing mount alone",
    "replication.rootCertificate": "tests/engine/test_change.py: replication by TLS",
    **{f"synchronous.{name}": "tests/engine/test_topology.py" for name in ("mode", "number", "standbys", "whenTooFew")},
    "server.upstream": "tests/engine/test_topology.py",
    "server.host": "another machine: tests/ssh/test_changes.py, tests/docker/test_stack.py",
    "server.adopt": "refused on a server that the stack has made",
}
