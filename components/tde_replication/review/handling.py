"""Values of a resource that only say how it is reached or handled: a change of them is stored, and changes nothing else."""

HANDLING = {
    "Adoption": {
        "binaries",
        "dataDirectory",
        "host",
        "name",
    },
    "CleanupRecord": {
        "adopted",
        "binaries",
        "clients",
        "dataDirectory",
        "disposable",
        "files",
        "host",
        "name",
        "others",
        "primaryDirectory",
        "primaryGoes",
        "primaryHost",
        "primaryIdentifier",
        "role",
        "slot",
        "stack",
    },
    "DataDirectory": {
        "binaries",
        "cipher",
        "database",
        "disposable",
        "diverged",
        "encryptWal",
        "encrypted",
        "name",
        "origin",
        "others",
        "primaryDirectory",
        "primaryHost",
        "rejoin",
        "role",
        "senderDirectory",
        "senderHost",
        "slot",
        "stack",
        "stanza",
        "upstream",
        "urn",
    },
    "DatabaseEncryption": {
        "dataDirectory",
        "host",
        "others",
        "patterns",
    },
    "Extension": {
        "dataDirectory",
        "host",
        "others",
    },
    "HbaRule": {
        "dataDirectory",
        "host",
        "others",
        "upstreamPlaces",
    },
    "KeyBinding": {
        "adopted",
        "dataDirectory",
        "database",
        "host",
        "others",
        "slots",
        "standbys",
    },
    "KeyProvider": {
        "adopted",
        "dataDirectory",
        "database",
        "existing",
        "host",
        "mountStays",
        "others",
    },
    "MinorUpgrade": {
        "primary",
        "servers",
        "urn",
    },
    "PrincipalKey": {
        "cipher",
        "dataDirectory",
        "database",
        "host",
        "others",
    },
    "ReplicationRole": {
        "dataDirectory",
        "host",
        "others",
        "stack",
    },
    "ReplicationSlot": {
        "dataDirectory",
        "host",
        "others",
        "stack",
        "standbyDirectory",
        "standbyHost",
    },
    "Server": {
        "binaries",
        "name",
        "ours",
        "restart",
    },
    "Stanza": {
        "dataDirectory",
        "host",
        "others",
    },
    "SynchronousStandbys": {
        "others",
        "whenTooFew",
    },
    "TableEncryption": {
        "dataDirectory",
        "host",
        "others",
        "urn",
    },
    "Topology": {
        "database",
        "encryption",
        "role",
        "rules",
        "servers",
        "urn",
    },
    "WalEncryption": {
        "adopted",
        "binaries",
        "name",
        "restart",
    },
}
"""By the type of a resource: the names of its inputs, as its reconciler has them. Without those, which take libraries that a
preview is shown without."""


FOLLOWING = {
    "DataDirectory": {"primaryIdentifier"},
    "ReplicationCheck": {"primaryDirectory", "primaryHost", "senderDirectory", "senderHost"},
}
"""Where the primary is now, and what a server streams from, as other resources know it: in a mere update that is what `Topology`
and `Server` say in their own lines."""


def is_handling(kind: str, key: str, operation: str) -> bool:
    """`key`: of an input, with the keys of mappings in it behind dots."""
    name = key.partition(".")[0]
    return name in HANDLING.get(kind, ()) or (operation == "update" and name in FOLLOWING.get(kind, ()))
