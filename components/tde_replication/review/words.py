"""What drift means in a DBA's words: how the thing is now, and what `up` makes of it.

A field that is not here says enough by itself: a parameter, an address, an attribute.
"""

from tde_replication.review.changes import Change

_MADE_AGAIN = "it is made again"
GONE = {
    "DataDirectory": ("it was removed", "a new one is made"),
    "Extension": ("it was dropped", "it is created again; provider and keys are still there"),
    "HbaRule": ("its line was removed", "it is put back, before other replication rules"),
    "HostFile": ("it was removed", "it is written again"),
    "ReplicationRole": ("it was dropped", "it is created again"),
    "ReplicationSlot": ("it was dropped", "it is created again"),
    "Server": ("its data directory was removed", "it is started on a new one"),
    "Stanza": ("it is not in pgBackRest's repository", "it is created again, without the backups that were in it"),
    "Token": ("it is not valid any more", "a new one is made, and written to its file"),
}
"""By the type of a resource that is gone."""
WORDS = {
    ("DataDirectory", "follows"): ("it cannot follow: {found}", "it is cloned again"),
    ("DataDirectory", "holds"): ("it holds {found}", "it must hold {declared}"),
    ("DatabaseEncryption", "outranked"): (
        "{found}, which overrides the database's value",
        "it stays: `up` does not change it",
    ),
    ("DatabaseEncryption", "tablesInClear"): (
        "in clear: {found}",
        "they stay: `up` encrypts only what `tables` declares",
    ),
    ("HbaRule", "lines"): ("its line is there {found} times", "it is there once"),
    ("HbaRule", "loaded"): ("its file was changed and not loaded", "it is loaded; nobody is disconnected"),
    ("HbaRule", "position"): ("its line is {found}", "it is {declared}; nobody is disconnected"),
    ("HbaRule", "upstreams"): (
        "of {declared}, only these have its line: {found}",
        "all have it; nobody is disconnected",
    ),
    ("HbaRule", "wrong"): ("PostgreSQL would reject the file: {found}", "that line must be corrected by hand"),
    ("HostFile", "contentMatches"): ("its content was changed", "it is written again"),
    ("KeyBinding", "key"): ("another key was set: {found}", "it is rotated back to {declared}"),
    ("MinorUpgrade", "waiting"): (
        "servers run with what was replaced on disk: {found}",
        "they are restarted, standbys first",
    ),
    ("PrincipalKey", "available"): ("the primary cannot use it: {found}", "it is proved once the cause is repaired"),
    ("Policy", "policy"): ("its rules were changed in Vault", "they are set as declared"),
    ("ReplicationCheck", "streaming"): ("whether it streams: {found}", "it is proved that it streams {declared}"),
    ("ReplicationRole", "connectionLimit"): ("it may connect {found} times at once", "without a limit"),
    ("ReplicationRole", "memberOf"): ("it is a member of {found}", "it is a member of no role"),
    ("ReplicationRole", "passwordMatches"): ("its password was changed", "it is set again; nobody is disconnected"),
    ("ReplicationRole", "validUntil"): ("its password is valid until {found}", "it does not expire"),
    ("ReplicationSlot", "walStatus"): ("it has lost WAL that its standby needs", "it is created again"),
    ("SecretContent", "content"): ("its value is {found}", "it is {declared}"),
    ("Server", "networks"): ("its container is on {found}", "it is on {declared}"),
    ("Server", "pendingReload"): ("changed in a file and not loaded: {found}", "set as declared and loaded"),
    ("Server", "pendingRestart"): ("changed and waiting for a restart: {found}", "set as declared"),
    ("Server", "recovery"): ("it is set up as a {found}", "as a {declared}"),
    ("Server", "replay"): ("its replay is {found}", "it goes on"),
    ("Server", "running"): ("it does not run", "it is started"),
    ("Server", "socket"): ("the file of its socket was removed", "a restart makes it again"),
    ("Server", "unfinished"): ("an interrupted `up` may have changed {found}", "set as declared"),
    ("Stanza", "holds"): ("it is of {found}", "it must be of {declared}: name another stanza"),
    ("SynchronousStandbys", "commits"): (
        "commits wait for standbys that do not stream",
        "it is set again once they stream",
    ),
    ("TableEncryption", "toDecrypt"): ("encrypted, and declared to be in clear: {found}", "they are decrypted"),
    ("TableEncryption", "toEncrypt"): ("in clear: {found}", "they are encrypted"),
    ("Topology", "commits"): ("commits wait for standbys that do not stream", "they go on"),
    ("Topology", "primary"): ("{found} takes writes", "{declared} does"),
    ("Topology", "straySlots"): ("slots that hold WAL for nobody: {found}", "they are dropped"),
    ("Topology", "unfinished"): ("a switchover from {found} was interrupted", "it is finished"),
    ("WalEncryption", "walEncrypt"): ("pg_tde.wal_encrypt is {found}", "it is {declared}"),
}
"""By the type of a resource and its field. What its repair interrupts is said of its server."""
VALUES = {("Server", "recovery"): {"none": "primary"}}
"""Where a value is not a DBA's word."""


def in_words(drift: Change) -> Change:
    """It as a person reads it."""
    kind = drift.resource.partition(" ")[0]
    if drift.found == "gone" and not drift.what:
        found, declared = GONE.get(kind, ("gone", _MADE_AGAIN))
        return Change(drift.resource, "", found, declared if drift.declared == "made again" else drift.declared)
    if (words := WORDS.get((kind, drift.what))) is None:
        return drift
    values = {name: _listed(kind, drift.what, getattr(drift, name)) for name in ("found", "declared")}
    found, declared = (text.format(**values) for text in words)
    return Change(drift.resource, "", found, declared)


def _listed(kind: str, field: str, value: str | None) -> str:
    text = (value or "nothing").removeprefix("[").removesuffix("]") or "none"
    return VALUES.get((kind, field), {}).get(text, text)
