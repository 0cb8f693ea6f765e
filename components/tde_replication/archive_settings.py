"""`archive` of the stack file: what archives the cluster's WAL, and where backups of it are."""

import re
from typing import Annotated

from pydantic import AfterValidator

from tde_replication.host_settings import Settings


def _stanza(text: str) -> str:
    """It is part of commands that PostgreSQL runs by a shell."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text) or ".." in text:
        raise ValueError(f'"{text}" is not the name of a stanza (write letters, digits, ".", "_" and "-")')
    return text


class PgBackRest(Settings):
    """It is installed on every server, where its own configuration names the repository: the same one for all servers."""

    stanza: Annotated[str, AfterValidator(_stanza)]
    """What WAL and backups of this cluster are kept under. One that is missing is made (stanza-create), and never removed."""


class Archive(Settings):
    """Where WAL goes; a standby that fell behind reads it there (docs/backup.md)."""

    pgbackrest: PgBackRest
