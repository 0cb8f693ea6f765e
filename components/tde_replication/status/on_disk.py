"""What the bytes on a server's disk show: read by the machine, as the server's account, and not by the server.

pg_tde says which tables are encrypted; this looks at their files. PostgreSQL begins each page of a table, and of WAL, with a
header whose fields fit together (its sources: bufpage.h, xlog_internal.h). What pg_tde writes has none, for it encrypts whole
pages. So every page has its own marker, and nothing has to be written or flushed to find one in clear.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from tde_replication.errors import CommandFailed
from tde_replication.hosts.base import Host
from tde_replication.status.model import Instance, OnDisk, Sample

HEADER_BYTES = 24
SEGMENT_BYTES = 2**30
"""Of a table's first file, at most."""
RELATION = re.compile(r"(base/\d+|pg_tblspc/\d+/PG_\w+/\d+)/\d+")


def on_disk(host: Host, data: PurePosixPath, samples: Sequence[Sample], instance: Instance) -> OnDisk:
    """Of one server: pages of `samples`, and its newest page of WAL where it says that this is encrypted.

    Raises `UserError` where the machine cannot be asked.
    """
    pages = [(one, at) for one in samples if RELATION.fullmatch(one.path) for at in _offsets(one)]
    wal = _newest_page(instance) if instance.wal_encrypted else None
    host.look(
        outputs=[_read(data / one.path, at) for one, at in pages] + ([_read(data / wal[0], wal[1])] if wal else [])
    )
    judged = [(one.name, page_in_clear(_bytes(host, data / one.path, at), one.block)) for one, at in pages]
    written = wal_in_clear(_bytes(host, data / wal[0], wal[1]), wal[2]) if wal else None
    return OnDisk(
        pages=sum(found is not None for _, found in judged),
        tables=len({name for name, found in judged if found is not None}),
        in_clear=tuple(sorted({name for name, found in judged if found})),
        wal="not known" if written is None else "in clear" if written else "encrypted",
    )


def page_in_clear(header: bytes, block: int) -> bool | None:
    """Whether a page of a table that begins so is one that PostgreSQL wrote as it is; None: nothing has been written there yet.

    `block`: its size in bytes. Of encrypted pages, fewer than one of a million looks so by chance.
    """
    if len(header) < HEADER_BYTES or not any(header):
        return None
    for order in "<>":
        lower, upper, special, size_and_version = struct.unpack_from(f"{order}4H", header, 12)
        if size_and_version & 0xFF00 == block and HEADER_BYTES <= lower <= upper <= special <= block:
            return True
    return False


def wal_in_clear(header: bytes, address: int) -> bool | None:
    """The same of a page of WAL at `address` (an LSN in bytes); None, too, for one of an earlier use of the file."""
    if len(header) < HEADER_BYTES or not any(header):
        return None
    for order in "<>":
        magic, flags, _, found = struct.unpack_from(f"{order}HHIQ", header)
        if magic >> 12 == 0xD and flags < 16:  # noqa: PLR2004 - XLOG_PAGE_MAGIC, XLP_ALL_FLAGS
            return True if found == address else None
    return False


def _offsets(sample: Sample) -> Iterator[int]:
    """Of the first page, and of two in the first half: PostgreSQL extends a file by many pages at once, so that the last ones may
    not be written yet."""
    count = min(sample.bytes, SEGMENT_BYTES) // sample.block
    yield from (page * sample.block for page in dict.fromkeys((0, count // 4, count // 2)) if page < count)


def _newest_page(instance: Instance) -> tuple[str, int, int] | None:
    """The file of the server's newest page of WAL, where in it that is, and its LSN in bytes."""
    size, block, end = instance.wal_segment_bytes, instance.wal_block_bytes, instance.lsn_bytes
    if not (size and block and end):
        return None
    address = (end - 1) // block * block
    number, each = address // size, 2**32 // size
    return f"pg_wal/{instance.timeline:08X}{number // each:08X}{number % each:08X}", address % size, address


def _read(path: PurePosixPath, at: int) -> list[str]:
    return ["od", "-A", "n", "-v", "-t", "x1", "-j", str(at), "-N", str(HEADER_BYTES), str(path)]


def _bytes(host: Host, path: PurePosixPath, at: int) -> bytes:
    """None of a file that is not there (any more), or ends before."""
    try:
        return bytes.fromhex(host.output(_read(path, at)))
    except (CommandFailed, ValueError):
        return b""
