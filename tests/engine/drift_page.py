"""docs/drift.md, made of the drift table: `python -m tests.engine.drift_page > docs/drift.md`."""

from itertools import groupby

from tests.engine.drift import NO_DRIFT, REFUSALS, ROWS
from tests.engine.shapes import FIRST, SECOND

WATCHED = {
    "Machine": "nothing: it is there so that what lies on a machine of the same program waits for it, and goes before it",
    "Adoption": "nothing: it is there so that an adopted server is not left as a standby of nobody (docs/topology.md)",
    "CompleteCluster": "nothing: it is there so that who depends on the component waits for all of it",
    "Expiry": "nothing: it is in the stack's state alone (docs/testing.md)",
    "CleanupRecord": "nothing: it holds no live thing, and is there so that `destroy` finds what a killed `up` left",
    "Password": "nothing: it is in the stack's state alone; HostFile and ReplicationRole compare what is made of it",
    "DataDirectory": "whether it is there, and of which cluster; a standby's also of which timeline, whether it has been a "
    "primary or runs without pg_tde, and whether the primary has the WAL that it needs next, and all that it has itself "
    "(`follows`)",
    "Topology": "who is the primary; slots of the stack on a server that their standbys are not to stream from, where they would "
    "hold WAL for ever; switchovers that have not come to their end; and with `whenTooFew: continue`, whether commits wait",
    "Server": "whether it runs, and its socket is there; every declared parameter, as it runs with it and as its files say; "
    "what waits for a reload or a "
    "restart; as what it runs (`recovery`), and whether it replays",
    "HostFile": "token, CA and passfile: whether it is there and a file, its content (as equal or not), mode and owner",
    "Extension": "whether it is in the database, and whether its version is that of the server's library",
    "DatabaseEncryption": "`pg_tde.enforce_encryption` and `default_table_access_method` of the database; roles that have "
    "another value of these; with `enforceEncryption` also tables in clear. The last two are shown, and not repaired",
    "KeyProvider": "its URL, mount, token path, CA path and namespace",
    "PrincipalKey": "whether the primary can open it in Vault, and it is the one that is in use there (of a key that is set)",
    "KeyBinding": "the name and provider of the key that is set for the server, as the default or for a database",
    "WalEncryption": "`pg_tde.wal_encrypt`, and whether another value waits for a restart",
    "ReplicationRole": "attributes, connection limit, expiry, memberships, and whether the password is the stack's",
    "HbaRule": "the fields of its line, whether it comes before all other replication rules, is there once and is loaded; and on "
    "which of the standbys that others stream from that is so",
    "ReplicationSlot": "whether it is there, its type, and whether its WAL is (`walStatus`)",
    "ReplicationCheck": "whether the standby streams from its slot; `not known` while the primary is down: then the same `up` "
    "proves it",
    "SynchronousStandbys": "`synchronous_standby_names` on the primary",
    "Stanza": "whether it is in pgBackRest's repository, and of this cluster (docs/backup.md)",
    "MinorUpgrade": "servers that run with programs or libraries which were replaced on disk (`waiting`)",
    "TableEncryption": "tables that match a pattern of `tables`, and are not encrypted as it says (or not in clear)",
    "Mount": "type, options and description of the Vault mount; where it is gone the keys are lost, and `up` is refused",
    "Policy": "its text",
    "Token": "whether it lives, and has enough of its period left",
    "SecretV2": "whether it is there",
    "SecretContent": "whether its newest version is deleted, and its value",
}
"""What each kind of resource compares with what is there."""
HEAD = """\
# Drift

`pulumi preview` reads every resource from the live servers first (`options.refresh: always`), so what was changed behind its
back shows as a planned repair, `drifted => declared`; `pulumi up` makes it. Every row below is a test that runs on the real
engine: it does what the second column says, compares the plan, runs `up`, and wants the next preview to be empty. This page
is made of the same table.

A reload disturbs nobody; a restart ends connections, and is shown in the preview (`restart: refused` forbids it); a new base
backup is shown with its size, and with its time where that server's last one was measured. With `disposable: true` the old
data is then removed, else set aside by rename.

## What is watched

| resource | what is compared | what a repair takes |
|---|---|---|
"""
REPAIRED = """
## What is repaired

| resource | what happened | `up` plans | what it takes |
|---|---|---|---|
"""
SHAPES = """
## What is repaired in other shapes

db1 and db2 are each other's synchronous standby (`whenTooFew: continue`), db3 has `upstream: db1`, and db4 `upstream: db2` and
`applyDelay: 1h`. Nothing is cloned again.

| primary | resource | what happened | `up` plans | what it takes |
|---|---|---|---|---|
"""
REFUSED = """
## What is refused

Nothing is changed; the message says why, and what to do.

| resource | what happened | the message says |
|---|---|---|
"""
QUIET = """
## What is no drift

| resource | what happened |
|---|---|
"""
TAIL = """
Nor are an LSN, a lag, a process id, a checkpoint, or load: no resource
holds what changes by itself. With the primary down, its own Server resource says so and plans the start; what lies inside it
is shown as last known, with a note.

## The drift check

`make drift STACK=…` (the same as `python -m bootstrap --stack … drift`) changes nothing, and ends with

| status | |
|---|---|
| 0 | nothing has drifted, and everything could be asked |
| 7 | something has drifted: it is marked, and `make preview` shows the repair |
| 8 | not everything could be asked: what and why is named at the end, also whether the rest has drifted |
| another | the check itself failed |

What could not be asked is shown as last known, so Pulumi alone takes it for unchanged. By hand, have it written to a file:

```sh
export TDE_REPLICATION_UNASKED=$(mktemp)
pulumi refresh --preview-only --expect-no-changes && test ! -s "$TDE_REPLICATION_UNASKED"
```

A preview warns above its plan of every check that it could not make.

## What cannot be seen

* Whether a running server has loaded a `pg_hba.conf` that was changed within the same second as its last load. (Parameters are
  compared with their files one by one.)
* A standby that ran without pg_tde and has been stopped since, or runs with it again: what it replayed meanwhile is in clear.
* What ALTER ROLE … SET or ALTER DATABASE … SET gives sessions, but for what DatabaseEncryption compares: it is not the server's
  own value.
* A principal key that is set for nothing: pg_tde has no call that lists keys.
"""


def _kind(resource: str) -> str:
    """Without the words behind it that say which one."""
    return resource.partition(" (")[0]


def page() -> str:
    parts = [HEAD]
    for resource, compared in WATCHED.items():
        takes = dict.fromkeys(row.repair for row in ROWS if _kind(row.resource) == resource)
        parts.append(f"| {resource} | {compared} | {'; '.join(takes) or '-'} |\n")
    parts.append(REPAIRED)
    for resource, rows in groupby(sorted(ROWS, key=lambda row: row.resource), key=lambda row: row.resource):
        for row in rows:
            plan = ", ".join(f"{step} {name}" for name, step in sorted(row.plan.items()))
            parts.append(f"| {resource} | {row.what} | {plan} | {row.repair} |\n")
    parts.append(SHAPES)
    for primary, table in {"db1": FIRST, "db2": SECOND}.items():
        for row in (row for rows in table.values() for row in rows):
            plan = ", ".join(f"{step} {name}" for name, step in sorted(row.plan.items()))
            parts.append(f"| {primary} | {row.resource} | {row.what} | {plan} | {row.repair} |\n")
    parts.append(REFUSED)
    parts += [f"| {refusal.resource} | {refusal.what} | … {refusal.says.strip(' (')} … |\n" for refusal in REFUSALS]
    parts.append(QUIET)
    parts += [f"| {resource} | {what} |\n" for resource, what, _ in NO_DRIFT]
    return "".join([*parts, TAIL])


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
