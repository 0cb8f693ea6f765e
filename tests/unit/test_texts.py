"""Small texts that other programs read, or that we read of them."""

import re
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
import psycopg.conninfo
import pytest
from hypothesis import given, strategies as st
from psycopg import pq

from tde_replication.errors import UserError
from tde_replication.hosts.files import Ended
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.postgres.control import ControlData, control_data
from tde_replication.postgres.copying import Copy, _duration, amount
from tde_replication.postgres.hba_file import cidr, same_address, take_out
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.inheritance import NOT_INHERITED
from tde_replication.postgres.replication_role import verifies
from tde_replication.postgres.upstream import Upstream, passfile
from tde_replication.progress import progress, reported_to
from tde_replication.summary import Line, summary

# Every other text is made of characters that mean something somewhere.
one_line = st.text(":\\'\" #,+@%$=aé", min_size=1) | st.text(
    st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1
)


def fields_as_libpq_reads_them(line: str) -> list[str]:
    """libpq's passwordFromFile: a colon ends a field, a backslash takes the next character as it is."""
    fields = [""]
    characters = iter(line.removesuffix("\n"))
    for character in characters:
        if character == ":":
            fields.append("")
        else:
            fields[-1] += next(characters) if character == "\\" else character
    return fields


@given(one_line, one_line)
def test_passfile_line_is_read_back_as_it_was_meant(role: str, password: str) -> None:
    assert fields_as_libpq_reads_them(passfile(role, password).decode()) == ["*", "*", "replication", role, password]


paths = one_line.map(lambda text: f"/{text}")


@given(one_line, paths, st.integers(1, 65535))
def test_conninfo_is_parsed_back_as_it_was_meant(role: str, path: str, port: int) -> None:
    upstream = Upstream(
        host="db1.example", port=port, role=role, tls="verify-full", root_certificate=path, passfile=path
    )
    assert psycopg.conninfo.conninfo_to_dict(upstream.conninfo("db2")) == {
        "host": "db1.example",
        "port": str(port),
        "user": role,
        "passfile": path,
        "sslmode": "verify-full",
        "sslrootcert": path,
        "application_name": "db2",
        "require_auth": "scram-sha-256",
        "channel_binding": "require",
    }


@pytest.mark.parametrize("tls", ["disable", "prefer", "require", "verify-ca"])
def test_conninfo_demands_scram_and_its_channel_binding_where_tls_is_required(tls: str) -> None:
    """A stranger who takes the primary's port while it restarts asks for the password in clear."""
    upstream = Upstream(host="h", port=1, role="r", tls=tls, passfile="/p")
    fields = psycopg.conninfo.conninfo_to_dict(upstream.conninfo("db2"))
    assert fields["require_auth"] == "scram-sha-256"
    assert fields.get("channel_binding") == ("require" if tls in {"require", "verify-ca"} else None)
    assert "dbname" not in fields


def test_a_stranger_on_the_primarys_port_gets_no_password(tmp_path: Path) -> None:
    """It asks for it in clear, as a server with "password" in its pg_hba.conf does; libpq is what a standby has, too."""
    secret = tmp_path / "pgpass"
    secret.write_bytes(passfile("replicator", "the password"))
    secret.chmod(0o600)
    heard = bytearray()

    def ask(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            heard.extend(connection.recv(8192))  # the request for TLS
            connection.sendall(b"N")
            heard.extend(connection.recv(8192))  # the start of a session
            connection.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
            heard.extend(connection.recv(8192))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        stranger = threading.Thread(target=ask, args=[listener])
        stranger.start()
        port = listener.getsockname()[1]
        upstream = Upstream(host="127.0.0.1", port=port, role="replicator", tls="prefer", passfile=str(secret))
        with pytest.raises(psycopg.OperationalError, match="authentication method requirement"):
            psycopg.connect(upstream.conninfo("db2"), dbname="replication", connect_timeout=5)
        stranger.join()
    assert b"replicator" in heard
    assert b"the password" not in heard


@given(one_line, one_line, one_line)
def test_slots_are_synchronized_from_a_database(role: str, password: str, database: str) -> None:
    upstream = Upstream(host="h", port=1, role=role, tls="prefer", passfile="/p")
    assert psycopg.conninfo.conninfo_to_dict(upstream.conninfo("db2", database))["dbname"] == database
    streaming, synchronizing = passfile(role, password, [database]).decode().removesuffix("\n").split("\n")
    assert f"{streaming}\n".encode() == passfile(role, password)
    assert fields_as_libpq_reads_them(synchronizing) == ["*", "*", database, role, password]


def test_conninfo_names_no_certificate_where_none_is_declared() -> None:
    upstream = Upstream(host="h", port=1, role="r", tls="prefer", passfile="/p")
    assert "sslrootcert" not in upstream.conninfo("db2")


def rule(**fields: Any) -> HbaRule:
    declared = {"host": "local", "data_directory": "/d", "system_identifier": "1", "role": "r", "address": "::1/128"}
    return HbaRule.model_validate(declared | fields)


@pytest.mark.parametrize(
    ("role", "written"),
    [
        ("replicator", "replicator"),
        ("replication", '"replication"'),
        ("all", '"all"'),
        ("Bob", '"Bob"'),
        ("a b", '"a b"'),
        ('say "hi"', '"say ""hi"""'),
        ("a,b", '"a,b"'),
        ("+group", '"+group"'),
        ("@file", '"@file"'),
        ("a#b", '"a#b"'),
        ("rôle", '"rôle"'),
    ],
)
def test_names_are_quoted_in_pg_hba(role: str, written: str) -> None:
    line = rule(role=role)._text().decode()
    assert line.endswith("# tde-replication\n")
    made_for = re.escape(f"# for {role} from ::1/128 # tde-replication")
    assert re.fullmatch(rf"host +replication +{re.escape(written)} +::1/128 +scram-sha-256 +{made_for}\n", line)


@given(one_line)
def test_whatever_a_role_is_called_it_makes_one_line_and_no_further_field(role: str) -> None:
    line = rule(role=role)._text().decode()
    assert line.count("\n") == 1
    text = line.removesuffix(f"   # for {role} from ::1/128 # tde-replication\n")
    fields = re.sub(r'"(?:[^"]|"")*"', "quoted", text).split()
    assert len(fields) == 5
    assert fields[0] == "host"
    assert fields[3:5] == ["::1/128", "scram-sha-256"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.0.0.1/32", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.0/255.0.0.0"),
        ("::1/128", "0:0:0:0:0:0:0:1/128"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("DB1.example", "db1.example"),
        ("samehost", "samehost"),
        ("all", "all"),
    ],
)
def test_spellings_of_one_address(one: str, other: str) -> None:
    assert same_address(one, other)
    assert same_address(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10.0.0.1/32", "10.0.0.2/32"),
        ("10.0.0.0/8", "10.0.0.0/16"),
        ("0.0.0.0/0", "::/0"),
        ("db1.example", "db2.example"),
        ("10.0.0.1/32", "db1.example"),
        ("all", "0.0.0.0/0"),
    ],
)
def test_other_addresses(one: str, other: str) -> None:
    assert not same_address(one, other)
    assert not same_address(other, one)


@given(st.ip_addresses(), st.data())
def test_any_network_is_found_again_by_its_netmask(address: Any, data: st.DataObject) -> None:
    bits = data.draw(st.integers(0, address.max_prefixlen))
    everything = 2**address.max_prefixlen - 1
    netmask = type(address)(everything << (address.max_prefixlen - bits) & everything)
    assert same_address(cidr(str(address), str(netmask)), f"{address}/{bits}")


def test_host_names_have_no_netmask() -> None:
    assert cidr("db1.example", None) == "db1.example"


@pytest.mark.parametrize(
    ("text", "number", "left"),
    [
        (b"a\nb\nc\n", 2, b"a\nc\n"),
        (b"a\nb \\\n more\nc\n", 2, b"a\nc\n"),
        (b"a\nb \\\r\n more\r\nc\n", 2, b"a\nc\n"),
        (b"a\nb \\\n more \\\n still", 2, b"a\n"),
        (b"a\nb", 2, b"a\n"),
    ],
)
def test_a_rule_goes_with_its_continuation_lines(text: bytes, number: int, left: bytes) -> None:
    lines = text.splitlines(keepends=True)
    take_out(lines, number)
    assert b"".join(lines) == left


def made_by_libpq(password: str) -> str:
    connection = pq.PGconn.connect_start(b"host=/nonexistent")
    verifier = connection.encrypt_password(password.encode(), b"role", b"scram-sha-256").decode()
    connection.finish()
    return verifier


ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)


def test_a_verifier_of_libpq_is_of_its_password() -> None:
    for password in ("x", "a b", "it's", "back\\slash", '"', "%s", "0" * 200):
        verifier = made_by_libpq(password)
        assert verifies(password, verifier)
        assert not verifies(password + "x", verifier)
        assert not verifies(password[:-1], verifier)


@pytest.mark.parametrize(
    "stored",
    [None, "", "secret", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$4096:c2FsdA==", "SCRAM-SHA-1$1:a$b:c"],
)
def test_what_is_no_scram_verifier_verifies_nothing(stored: str | None) -> None:
    assert not verifies("secret", stored)


def told(line: str, seconds: float) -> list[str]:
    said: list[str] = []
    with reported_to(lambda text, _: said.append(text)):
        copied(seconds, line)
    return said


def copied(seconds: float, *lines: str) -> Copy:
    """A copy that said this after as many seconds."""
    copy = Copy("base backup of db1", clock=iter([0.0, *[seconds] * 10]).__next__)
    for line in lines:
        copy.tell(line)
    return copy


def test_progress_of_a_base_backup() -> None:
    gib = 1024 * 1024
    assert told(f"{12 * gib}/{38 * gib} kB (31%), 0/1 tablespace", 41) == [
        "base backup of db1: 12.0 GiB of 38.0 GiB (31 %), 299.7 MiB/s, about 1 min 29 s left"
    ]
    assert told("0/4096 kB (0%), 0/1 tablespace", 0) == ["base backup of db1: 0 B of 4.0 MiB (0 %), 0 B/s"]
    assert told(" 4096/4096 kB (100%), 1/1 tablespace", 3) == [
        "base backup of db1: 4.0 MiB of 4.0 MiB (100 %), 1.3 MiB/s"
    ]
    # The server's estimate may be too small: never more than all of it.
    assert told("5120/4096 kB (100%), 0/1 tablespace", 1)[0].startswith(
        "base backup of db1: 5.0 MiB of 5.0 MiB (100 %)"
    )
    assert told("0/0 kB (100%), 1/1 tablespace", 1) != []
    assert told("pg_basebackup: checkpoint completed", 1) == []


def test_a_base_backup_knows_how_fast_it_was() -> None:
    assert copied(2, "1024/4096 kB (25%), 0/1 tablespace", "4096/4096 kB (100%), 1/1 tablespace", "done").rate == 2**21
    assert copied(2, "pg_basebackup: checkpoint completed").rate is None


def test_nobody_need_listen() -> None:
    progress("nobody hears it")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "2 KiB"), (1024**2, "1.0 MiB"), (1024**3 * 1.5, "1.5 GiB"),
     (1024**4, "1.0 TiB"), (1024**5, "1024.0 TiB")],
)  # fmt: skip
def test_sizes(count: float, shown: str) -> None:
    assert amount(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"), (90061, "25 h 1 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert _duration(seconds) == shown


CONTROL = """\
pg_control version number:            1800
Database system identifier:           7579821021830312345
Database cluster state:               in archive recovery
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint location:           0/3000060
Minimum recovery ending location:     0/3000158
Latest checkpoint's REDO WAL file:    000000010000000000000003
Latest checkpoint's TimeLineID:       1
Bytes per WAL segment:                16777216
"""


class Answering(LocalHost):
    """A host on which every command says the same."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said
        self.asked: list[str] = []

    def output(self, command: Sequence[str]) -> str:
        self.asked = list(command)
        return self.said


@pytest.mark.parametrize("listed", [b"a\0../b\0", b"..\0", b".\0", b"\0"])
def test_a_listing_of_names_that_no_file_can_have_is_refused(listed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    host = LocalHost()
    monkeypatch.setattr(host, "_execute", lambda *_, **__: Ended(0, listed, ""))
    with pytest.raises(UserError, match=r"^/d: it lists a name that no file can have$"):
        host.listing(PurePosixPath("/d"))


BIN, DATA = PurePosixPath("/b in"), PurePosixPath("/d'ata")


def test_control_data() -> None:
    host = Answering(CONTROL)
    assert control_data(host, BIN, DATA) == ControlData(
        "7579821021830312345", "in archive recovery", 1, "000000010000000000000003", 2**24, "0/3000158"
    )
    assert host.asked == ["/b in/pg_controldata", "--pgdata", "/d'ata"]


@pytest.mark.parametrize(
    "lacking",
    [
        "system identifier",
        "cluster state",
        "TimeLineID",
        "REDO WAL file",
        "WAL segment",
        "checkpoint location",
        "ending",
    ],
)
def test_control_data_that_lacks_a_line(lacking: str) -> None:
    rest = "".join(line for line in CONTROL.splitlines(keepends=True) if lacking not in line)
    with pytest.raises(UserError, match=rf"^pg_controldata does not report .*{lacking}.* of /d'ata$"):
        control_data(Answering(rest), BIN, DATA)


def clone(**fields: Any) -> ControlData:
    known: dict[str, Any] = {
        "system_identifier": "1",
        "state": "in archive recovery",
        "timeline": 1,
        "redo_wal_file": "000000010000000000000005",
        "segment_size": 2**24,
        "reached": "0/5000028",
    }
    return ControlData(**known | fields)


@pytest.mark.parametrize(
    ("state", "left"),
    [
        ("in archive recovery", False),
        ("shut down in recovery", False),
        ("in production", True),
        ("shut down", True),
        ("shutting down", True),
        ("in crash recovery", True),
    ],
)
def test_a_clone_that_has_been_a_primary(state: str, left: bool) -> None:  # noqa: FBT001 - one of a table
    assert clone(state=state).left_recovery is left


@pytest.mark.parametrize(
    ("size", "wal_file", "number"),
    [
        (2**24, "000000010000000000000003", 3),
        (2**24, "00000002000000010000000F", 271),
        (2**30, "000000010000000100000003", 7),
    ],
)
def test_wal_files_are_numbered_whatever_their_timeline(size: int, wal_file: str, number: int) -> None:
    assert clone(segment_size=size).segment(wal_file) == number


def line(name: str, port: int, slot: str | None = None) -> Line:
    return Line(name, "local", "127.0.0.1", port, f"/pg/{name}/data", slot)


def test_summary_of_one_standby() -> None:
    assert summary("local", [line("primary", 54321), line("db2", 54322, "tde_db2")], "4GB", "", None) == (
        "local: 1 primary, 1 standby, streaming          encrypted by pg_tde\n"
        "  primary  primary  127.0.0.1:54321\n"
        "  db2      standby  127.0.0.1:54322   slot tde_db2 (holds back at most 4GB of WAL)"
    )


def test_summary_of_a_primary_alone_and_not_encrypted() -> None:
    assert summary("dev", [line("p", 1)], "4GB", "it has no pg_tde", None) == (
        "dev: 1 primary, no standby          NOT ENCRYPTED: it has no pg_tde\n  p  primary  127.0.0.1:1"
    )


def test_summary_of_more() -> None:
    servers = [line("p", 1), line("a", 2, "tde_a"), line("b", 3, "tde_b")]
    assert "1 primary, 2 standbys, streaming" in summary("dev", servers, "4GB", "", None)


def test_summary_of_a_cluster_that_expires() -> None:
    last = summary("dev", [line("p", 1)], "4GB", "", "2026-11-30T09:12:59+00:00").splitlines()[-1]
    assert last == "  expires 2026-11-30 09:12 UTC: after that, make reap destroys it"


def test_outputs_of_a_server() -> None:
    assert line("p", 1).output == {
        "name": "p",
        "host": "local",
        "port": 1,
        "dataDirectory": "/pg/p/data",
        "state": "running",
    }
    assert line("a", 2, "tde_a").output["slot"] == "tde_a"


def test_the_page_on_hosts_names_what_a_clone_does_not_take_over() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {name: row[-1].removesuffix(" |") for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert {name: told.get(name) for name in NOT_INHERITED} == {name: one.why for name, one in NOT_INHERITED.items()}
