"""The tables of one database that a stack file wants encrypted, or in clear."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from tde_replication.postgres.copying import amount
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.session import session
from tde_replication.postgres.table_rewrite import rewrite, total
from tde_replication.postgres.tables import Pattern, Survey, Table, survey
from tde_replication.records import Cost

SHOWN = 50
"""As many tables are named in a diff."""
COSTLY = 5
"""As many are named in a cost: the largest."""


class TableEncryption(OnPrimary):
    """Rewrites what is not as `patterns` declare it (`table_rewrite`). What matches no pattern is left alone, and so is
    everything when this goes: no table is rewritten by a destroy."""

    database: str
    patterns: list[Pattern]
    """The first that a table matches decides."""
    to_encrypt: list[str] = []
    """Tables in clear that are to be encrypted."""
    to_decrypt: list[str] = []
    """Encrypted tables that are to be in clear."""
    urn: str = ""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"database"}
    not_compared: ClassVar[frozenset[str]] = frozenset({"urn"})

    @property
    def row(self) -> str:
        return self.urn

    @property
    def identity(self) -> str:
        return f"tables of {self.database}"

    def read(self) -> Self:
        found = self._survey()
        return self.replace(to_encrypt=_names(found.to_encrypt), to_decrypt=_names(found.to_decrypt))

    def costs(self, live: Self | None) -> Iterator[Cost]:
        del live
        found = self._survey()
        if found.tables:
            size = sum(table.size for table in found.tables)
            yield Cost(kind="rewrite", text=in_words(found, self.database), size=size)

    def create(self) -> Self:
        with session(self, self.identity, self.database) as server:
            rewrite(server, survey(server, self.patterns).trees)
        return self

    def update(self, live: Self) -> Self:
        del live
        return self.create()

    def delete(self) -> None:
        """The tables stay as they are."""

    def _survey(self) -> Survey:
        with session(self, self.identity, self.database) as server:
            return survey(server, self.patterns)


def in_words(found: Survey, database: str) -> str:
    """What a rewrite of `found` means."""
    what = [
        f"{verb} {total(tables)} in database {database}"
        for verb, tables in (("encrypts", found.to_encrypt), ("decrypts", found.to_decrypt))
        if tables
    ]
    text = f"{' and '.join(what)}, each locked (ACCESS EXCLUSIVE) while it is rewritten: {_largest(found.tables)}"
    if found.sequences:
        text += f"; sequences that no table owns stay in clear: {', '.join(_cut(found.sequences, COSTLY))}"
    return text


def _names(tables: Sequence[Table]) -> list[str]:
    return _cut(sorted(table.name for table in tables), SHOWN)


def _largest(tables: Sequence[Table]) -> str:
    by_size = sorted(tables, key=lambda table: -table.size)
    return ", ".join(_cut([f"{table.name} ({amount(table.size)})" for table in by_size], COSTLY))


def _cut(names: Sequence[str], most: int) -> list[str]:
    return [*names[:most], *([f"and {len(names) - most} more"] if len(names) > most else [])]
