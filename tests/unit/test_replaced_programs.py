"""What Linux says of the files that a process has mapped: which of PostgreSQL's own were replaced on disk."""

from pathlib import PurePosixPath

from tde_replication.postgres.replaced_programs import deleted

TREE = PurePosixPath("/usr/lib/postgresql/18")
MAPS = """\
55e0c0a00000-55e0c0b00000 r-xp 00000000 08:01 131 /usr/lib/postgresql/18/bin/postgres (deleted)
7f2a00000000-7f2a00100000 r-xp 00000000 08:01 132 /usr/lib/postgresql/18/lib/pg_tde.so (deleted)
7f2a00100000-7f2a00200000 r--p 00000000 08:01 132 /usr/lib/postgresql/18/lib/pg_tde.so (deleted)
7f2a00200000-7f2a00300000 r-xp 00000000 08:01 133 /usr/lib/postgresql/18/lib/plpgsql.so
7f2a00300000-7f2a00400000 r-xp 00000000 08:01 134 /usr/lib/x86_64-linux-gnu/libcrypto.so.3 (deleted)
7f2a00400000-7f2a00500000 rw-s 00000000 00:01 135 /dev/zero (deleted)
7f2a00500000-7f2a00600000 rw-s 00000000 00:01 136 /SYSV0052e2c1 (deleted)
7f2a00600000-7f2a00700000 rw-p 00000000 00:00 0 [heap]
"""


def test_of_postgresql_alone() -> None:
    """Another library, and shared memory, which has no name on disk, are no reason for a restart."""
    assert sorted(set(deleted(MAPS, TREE))) == ["pg_tde.so", "postgres"]
    assert list(deleted(MAPS, PurePosixPath("/usr/lib/postgresql/17"))) == []


def test_nothing_was_replaced() -> None:
    assert list(deleted(MAPS.replace(" (deleted)", ""), TREE)) == []
    assert list(deleted("", TREE)) == []
