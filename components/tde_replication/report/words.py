"""Words for readers who do not know the field."""

from tde_replication.status.finding import Level

LEVELS = {
    Level.WELL: ("Well.", "Every declared server is there, and every check passed."),
    Level.DEGRADED: ("Degraded.", "The cluster takes writes, and something of it is wrong."),
    Level.BROKEN: ("Broken.", "Applications cannot rely on this cluster, or its data are in danger: act now."),
    Level.UNKNOWN: ("Cannot tell.", "Nothing is known to be wrong, and not everything could be asked."),
}
GLOSSARY = {
    "Cluster": "One set of data, and all the servers that hold it.",
    "Primary": "The server that takes writes. There must be exactly one.",
    "Standby": "A server that holds a copy of the data, receives every change, and can become the primary.",
    "Write-ahead log (WAL)": "The log in which a server writes every change before it changes a table.",
    "Slot": "Has a server keep the WAL that a standby has not received yet.",
    "Timeline": "A number that goes up each time a standby becomes the primary.",
    "pg_tde": "The extension of PostgreSQL that encrypts tables and WAL before they are written to disk.",
    "Principal key": "The key that encrypts all other keys of a server. To rotate it is to replace it by a new one.",
    "Vault": "The service that holds the principal key, and gives it to servers that show a valid token.",
    "Synchronous": "A commit waits until such a standby has the change. With an asynchronous one it does not wait.",
}
WELL_IN_CLEAR = ("Replication is well.", "Every declared server is there and does its part.")
"""In place of those of WELL, where nothing is encrypted."""
SCOPE = (
    "Made by tde-replication from what the servers and Vault answered at that moment. The page holds no password, key or token, "
    "loads nothing from elsewhere and runs no script."
)
