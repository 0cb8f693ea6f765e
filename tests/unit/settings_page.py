"""docs/settings.md, made of the models' own words and a table of costs.

``python -m tests.unit.settings_page > docs/settings.md`` writes it.
"""

import json
from collections.abc import Iterator
from typing import Any

from tde_replication import (
    archive_settings,
    encryption_settings,
    host_settings,
    replication_settings,
    settings,
    vault_settings,
)
from tde_replication.schema import descriptions

HEAD = """\
# Settings

A stack file, `stacks/Pulumi.<stack>.yaml`, holds `tde-replication:cluster` with the keys below; `vault:address` and
`vault:token` (or VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, VAULT_NAMESPACE in the environment) say where the Vault is; which
token may go to which address is in [security](security.md#whose-token-goes-where). All
mistakes are reported together, each with its key, before anything is touched. A preview says which servers will be restarted, and
why; the rows about a running cluster are tests (`tests/engine/change.py`). This page is made of the settings' own words.
"""
SECTIONS: list[tuple[str, str, type[host_settings.Settings]]] = [
    ("cluster", "", settings.Cluster),
    ("each of tables", "tables.", encryption_settings.Tables),
    ("vault", "vault.", vault_settings.Vault),
    ("key", "key.", vault_settings.Key),
    ("each of keys", "keys.", vault_settings.DatabaseKey),
    ("replication", "replication.", replication_settings.Replication),
    ("archive", "archive.", archive_settings.Archive),
    ("archive.pgbackrest", "archive.pgbackrest.", archive_settings.PgBackRest),
    ("synchronous", "synchronous.", replication_settings.Synchronous),
    ("each of servers", "server.", settings.Server),
    ("host: a machine reached by ssh", "host.", host_settings.Ssh),
    ("host: a container", "host.", host_settings.Docker),
]
RELOAD, RESTART, NOTHING = "in place, reload", "restart of that server", "nothing: used the next time"
STORED = "nothing; `destroy` goes by it once an `up` has stored it"
ANOTHER = "another server: a new base backup; for a primary, refused"
WAY = "in place: another way to the machine; nothing moves or restarts"
PROGRAMS = "refused where the data there is of another major version, or no such server is installed"
COSTS = {
    "encryption": "off → required: restart of all servers; required → off: refused, for encrypted tables could not be read",
    "cipher": "in place, with another key.name in the same edit (a rotation; refused without), for what is made from then on; "
    "restart of all servers where WAL is encrypted",
    "walEncryption": "restart of all servers; only WAL written from then on is encrypted, or is not",
    "database": "in place: the extension there, dropped in the former one if nothing uses it",
    "databases": "in place: the extension there; dropped in one that is taken out, if nothing uses it",
    "enforceEncryption": "in place, for sessions that begin from then on; no table is rewritten",
    "defaultTableAccessMethod": "in place, for sessions that begin from then on; no table is rewritten",
    "tables": "each table that is not so yet is rewritten by `up`, under a lock; taken out, tables stay as they are "
    "(docs/encryption.md)",
    **dict.fromkeys(
        ("tables.database", "tables.schema", "tables.table", "tables.encrypted"), "as `tables`: what matches then"
    ),
    "protect": STORED,
    "disposable": STORED,
    "expires": "in place: the time is counted from the same moment. Without it, and set again: from then on",
    "vault": "see below",
    "key": "see below",
    "keys": "in place: a rotation of that database to its own key; taken out, back to the default key",
    "replication": "see below",
    "archive": "restart of all servers, for archive_mode; taken out too. The stanza and its backups stay (docs/backup.md)",
    "archive.pgbackrest": "see above",
    "archive.pgbackrest.stanza": "in place, reload: another stanza is made; the former one stays with its backups",
    "synchronous": "in place, reload: at the end of `up`, once enough stream; taken out, at its beginning",
    "primary": "a switchover: the former primary stops and follows, nothing is cloned (docs/topology.md)",
    "minorUpgrade": "nothing, until packages replace a server's programs: then the next `up` restarts it (docs/updates.md)",
    "rejoin": "in place, reload: pg_hba rules and passfiles; then nothing until a former primary has WAL of its own",
    "servers": "only those that come (a base backup) or go; the others are not touched. By another name, a standby is a new one, "
    "with a dataDirectory and port of its own, and the former one goes",
    "vault.mount": "of a running encrypted cluster: together with `vault.provider` alone",
    "vault.existing": "false → true: new policies and tokens; the former mount stays; refused where it is disposable. true → "
    "false: refused, for Vault has that mount",
    "vault.addressFromServers": "in place: the key provider's URL",
    "vault.network": "replacement of containers; their volumes stay",
    "vault.ca": "in place: the file on each server; refused where it is not that of the Vault",
    "vault.namespace": "of a running encrypted cluster: together with `vault.name` alone",
    "vault.name": "in place: all that is in Vault is made there, and the cluster moves as by another `provider`",
    "vault.provider": "in place: files of its own, and a rotation to a key of the new one; then the former one goes",
    "vault.tokenPeriod": "in place: new tokens and their files",
    "vault.renewal": "in place: a systemd timer on each machine reached by ssh comes, or goes",
    "key.name": "in place: a rotation. Refused while a standby cannot open keys, and during a base backup",
    "key.rotateAfter": "nothing, until a key is older: then the next `up` rotates, as for another name. Without it, the last "
    "rotation stays",
    "key.scope": "in place; a key that was set once stays set",
    "key.former": "in place: the servers' policies",
    "keys.name": "in place: a rotation, as of key.name",
    "replication.role": "in place: role, pg_hba rules, passfiles, then standbys reconnect; the former role is dropped",
    "replication.tls": "in place, reload; standbys reconnect",
    "replication.maxSlotWalKeepSize": RELOAD,
    "replication.rootCertificate": "in place, reload; standbys reconnect",
    **dict.fromkeys(
        ("synchronous.mode", "synchronous.number", "synchronous.standbys"), "in place, reload, once enough stream"
    ),
    "synchronous.whenTooFew": NOTHING,
    "replication.passwordVersion": "in place; streaming goes on",
    "server.host": ANOTHER,
    "server.port": "restart of that server; of the primary: standbys follow by reload",
    "server.dataDirectory": ANOTHER,
    "server.binaries": f"{NOTHING}; refused where they are of another major version",
    "server.listen": RESTART,
    "server.address": "in place, reload: the pg_hba rule",
    "server.adopt": "refused: decided when a primary is first declared",
    "server.restart": NOTHING,
    "server.upstream": "in place, reload: a slot on the server that it streams from next; a new base backup where its WAL is "
    "gone from there",
    "server.applyDelay": "in place, reload",
    "server.settings": "in place, reload; restart where the parameter can only change at start. Standbys follow the primary's "
    "max_connections, max_worker_processes, max_wal_senders, max_prepared_transactions and max_locks_per_transaction",
    "host.ssh": "another machine: a new base backup; for a primary, refused. The same one by another name: in place, where "
    "known_hosts has its host key under both",
    "host.port": "as `ssh`",
    **dict.fromkeys(
        ("host.user", "host.key", "host.certificate", "host.knownHosts", "host.hostKeys", "host.jump"), WAY
    ),
    "host.account": "refused where it cannot look into the data",
    **dict.fromkeys(("host.system", "host.version"), PROGRAMS),
    "host.packages": "in place: they are installed; `none`: they stay",
    "host.unit": "refused by `up` while another unit runs the server: start it by that one first",
    "host.docker": "replacement of the container around its volume; refused for another major version, of an image that is "
    "Percona's, or here and says which it is (PG_MAJOR)",
}
"""What a change of each costs on a running cluster."""


def page() -> str:
    return "".join([HEAD, *(_section(*section) for section in SECTIONS)])


def keys() -> Iterator[str]:
    """All settings, as COSTS names them."""
    for _, prefix, model in SECTIONS:
        for name, field in model.model_fields.items():
            yield prefix + (field.alias or name)


def _section(title: str, prefix: str, model: type[host_settings.Settings]) -> str:
    meanings, schema = descriptions(model), model.model_json_schema()
    lines = [f"\n## {title}\n\n"]
    if model.__doc__:
        lines.append(f"{' '.join(model.__doc__.split())}\n\n")
    lines.append("| key | type | default | meaning | a change costs |\n|---|---|---|---|---|\n")
    for name, field in model.model_fields.items():
        key = field.alias or name
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=False))
        cells = [
            f"`{key}`",
            _type(schema["properties"][key], schema),
            default,
            meanings.get(name, ""),
            COSTS[prefix + key],
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(lines)


def _default(value: Any) -> str:
    if value is None or isinstance(value, host_settings.Settings):
        return ""
    text = (
        value if isinstance(value, str) else json.dumps(value, default=lambda one: one.model_dump(exclude_unset=True))
    )
    return f"`{text}`"


def _type(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    """A JSON schema in a word or two."""
    if "anyOf" in schema or "oneOf" in schema:
        kinds = [_type(one, whole) for one in [*schema.get("anyOf", []), *schema.get("oneOf", [])]]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "$ref" in schema or "allOf" in schema:
        return "mapping"
    if "enum" in schema:
        return " / ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'], whole)}"
    words = {"string": "text", "integer": "number", "boolean": "true / false", "object": "mapping", "null": "null"}
    return words[schema["type"]]


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - it is what this is for
