"""pg_tde.cipher: the cipher of new keys. (Percona pg_tde documentation, *pg_tde.cipher*; pg_tde 2.2 and newer.)

The process that makes a key decides: a backend on the primary, the startup process on a standby, and for WAL the postmaster
when it starts. So every server has the parameter. What has a key keeps its cipher until it is rewritten.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import cast

from psycopg.errors import Diagnostic

from tde_replication.postgres.session import Session
from tde_replication.values import Cipher

PARAMETER = "pg_tde.cipher"
OLDEST: Cipher = "aes_128"
"""What pg_tde before 2.2 encrypts with: it has no such parameter."""
_LENGTHS: dict[str, Cipher] = {"16": "aes_128", "32": "aes_256"}
_ANOTHER_LENGTH = re.compile(
    r'length "(\d+)" of key ".*" does not match the length "\d+" of the current cipher setting', re.DOTALL
)


def cipher_of_key(warning: str) -> Cipher | None:
    """The cipher that a principal key is long enough for, where pg_tde warns that this is another than `PARAMETER`."""
    found = _ANOTHER_LENGTH.fullmatch(warning)
    return _LENGTHS.get(found[1]) if found else None


def cipher_in_force(server: Session) -> Cipher | None:
    """The server's; None for a pg_tde that has no choice (or is not loaded)."""
    # A value in the file of a server that has no such parameter is not in pg_settings.
    return cast("Cipher | None", server.value("SELECT setting FROM pg_settings WHERE name = %s", [PARAMETER]))


def recodes_wal(server: Session, changed: Collection[str]) -> bool:
    """Whether one of the changed parameters is for WAL too, which takes it up at a start: pg_settings does not say so."""
    return PARAMETER in changed and server.value("SELECT current_setting('pg_tde.wal_encrypt', true)") == "on"


@contextmanager
def warnings(server: Session) -> Iterator[list[str]]:
    """What the server warns of meanwhile."""
    told: list[str] = []

    def keep(notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            told.append(notice.message_primary or "")

    server.connection.add_notice_handler(keep)
    try:
        yield told
    finally:
        server.connection.remove_notice_handler(keep)
