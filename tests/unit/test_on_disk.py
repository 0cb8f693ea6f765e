"""Whether a page on a disk is in clear, told by its header; tests/providers/test_on_disk.py tries it on a server's own."""

import random
import struct

import pytest

from tde_replication.report.protection import Protection, rows
from tde_replication.status.encryption_checks import encryption_findings
from tde_replication.status.figures import bytes_on_disk
from tde_replication.status.finding import Level
from tde_replication.status.model import OnDisk
from tde_replication.status.on_disk import page_in_clear, wal_in_clear
from tests.unit.clusters import changed, encryption, healthy

BLOCKS = (1024, 8192, 32768)
ADDRESS = 0x5_03FF_E000


def page(block: int = 8192, order: str = "<", lower: int = 28, upper: int = 100, special: int | None = None) -> bytes:
    """As bufpage.h has it."""
    return struct.pack(f"{order}QHH4HI", 1, 2, 0, lower, upper, block if special is None else special, block | 4, 0)


def wal_page(address: int = ADDRESS, order: str = "<", magic: int = 0xD118) -> bytes:
    """As xlog_internal.h has it."""
    return struct.pack(f"{order}HHIQII", magic, 2, 1, address, 0, 0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("block", BLOCKS)
def test_a_page_of_postgresql_is_in_clear(block: int, order: str) -> None:
    assert page_in_clear(page(block, order), block)
    assert wal_in_clear(wal_page(order=order), ADDRESS)


def test_of_what_is_not_written_yet_nothing_is_known() -> None:
    for nothing in (b"", bytes(24), page()[:-1]):
        assert page_in_clear(nothing, 8192) is None
        assert wal_in_clear(nothing, ADDRESS) is None
    assert wal_in_clear(wal_page(ADDRESS - 2**24), ADDRESS) is None, "of an earlier use of the file"


def test_what_is_encrypted_is_no_page() -> None:
    generator = random.Random(7)  # noqa: S311 - that a test is the same each time
    for _ in range(100_000):
        header = generator.randbytes(24)
        assert page_in_clear(header, 8192) is False
        assert not wal_in_clear(header, ADDRESS)


@pytest.mark.parametrize(
    "header", [page(lower=20), page(lower=200), page(special=99), page(block=4096), page(upper=9000, special=9000)]
)
def test_fields_that_do_not_fit_together_are_no_page(header: bytes) -> None:
    assert page_in_clear(header, 8192) is False


def read(**fields: object) -> OnDisk:
    return OnDisk.model_validate({"pages": 9, "tables": 3, "wal": "encrypted"} | fields)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (read(), "read on its disk: 9 pages of 3 encrypted tables, none in clear; newest page of WAL encrypted"),
        (
            read(in_clear=("app.public.t",), wal="in clear"),
            "read on its disk: 9 pages of 3 encrypted tables, IN CLEAR: app.public.t; newest page of WAL IN CLEAR",
        ),
        (read(pages=1, tables=1, wal="not known"), "read on its disk: 1 page of 1 encrypted table, none in clear"),
        (read(pages=0, tables=0), "read on its disk: no page of an encrypted table; newest page of WAL encrypted"),
        (read(problem="it is gone"), "its files could not be read: it is gone"),
    ],
)
def test_it_is_said_in_a_line(found: OnDisk, words: str) -> None:
    assert bytes_on_disk(found) == words


def test_of_the_stand_in_it_is_no_finding() -> None:
    """All of it is in clear, and said to be."""
    found = {"on_disk": read(in_clear=("app.public.t",))}
    assert [one.level for one in encryption_findings(changed("db1", **found)) if one.check == "on disk"] == [
        Level.BROKEN
    ]
    double = changed("db1", **found, encryption=encryption(stand_in=True))
    assert not [one for one in encryption_findings(double) if one.check == "on disk"]


def test_nothing_is_called_encrypted_on_the_page_that_was_not_read_on_every_server() -> None:
    whole = healthy()
    whole = whole.model_copy(
        update={"servers": tuple(one.model_copy(update={"on_disk": read()}) for one in whole.servers)}
    )

    def shown(on_disk: OnDisk | None) -> Protection:
        servers = (*whole.servers[:-1], whole.servers[-1].model_copy(update={"on_disk": on_disk}))
        [row] = [one for one in rows(whole.model_copy(update={"servers": servers})) if one.what.startswith("Files")]
        return row.protection

    assert shown(read()) is Protection.ENCRYPTED
    for unknown in (None, read(problem="it is gone"), read(pages=0)):
        assert shown(unknown) is Protection.UNKNOWN
    for clear in (read(in_clear=("app.public.t",)), read(wal="in clear")):
        assert shown(clear) is Protection.CLEAR
