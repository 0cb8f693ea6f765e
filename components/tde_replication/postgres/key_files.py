"""pg_tde's own files of keys, below ``pg_tde/`` of a data directory: which principal key opens what is encrypted there.

They are read as bytes, so that the server need not run, and of a backup none has to exist. (pg_tde's sources:
``TDEFileHeader`` in pg_tde_tdemap.c, ``WalKeyFileHeader`` in pg_tde_xlog_keys.c, ``TDEPrincipalKeyInfo``.)
"""

import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tde_replication.errors import UserError

DIRECTORY = "pg_tde"
NAME = re.compile(r"(wal|[1-9]\d*)_keys")
_HEADER = struct.Struct("<4s4xIiqq256s")
HEADER_BYTES = _HEADER.size
KINDS = {b"TDE": range(3, 5), b"WEK": range(1, 3)}
"""Which versions of each kind of file begin so: ``<oid>_keys``, and ``wal_keys``."""
DEFAULT_KEY_OID = 1663
"""In place of a database's oid: the default key."""


@dataclass(frozen=True)
class KeyFile:
    """What one key file says: the keys of a database's tables, or of WAL, are encrypted with this principal key."""

    database: int | None
    """Oid of the database; None: the server key."""
    key: str
    provider: int
    """The id of its key provider; those of a database are positive."""
    since: datetime
    """When it was set on the server that wrote the file."""

    @property
    def is_default(self) -> bool:
        return self.database == DEFAULT_KEY_OID


def parse(name: str, content: bytes) -> KeyFile | None:
    """The file called `name`, of which `content` has the first `HEADER_BYTES` at least; None where it holds no key.

    Raises `UserError` where it is not as pg_tde writes it.
    """
    if not any(content):
        return None
    unknown = f"{DIRECTORY}/{name}: not a key file that pg_tde 2.0 to 2.2 writes"
    kind = NAME.fullmatch(name)
    if kind is None or len(content) < HEADER_BYTES:
        raise UserError(unknown)
    magic, _, provider, seconds, microseconds, padded = _HEADER.unpack_from(content)
    if magic[:3] != (b"WEK" if kind[1] == "wal" else b"TDE") or magic[3] not in KINDS[magic[:3]]:
        raise UserError(unknown)
    try:
        key = padded.split(b"\0", 1)[0].decode()
        since = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)
    except (ValueError, OverflowError, OSError):
        raise UserError(unknown) from None
    if not key:
        return None
    return KeyFile(None if kind[1] == "wal" else int(kind[1]), key, provider, since)
