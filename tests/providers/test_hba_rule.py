"""Our line in pg_hba.conf: put in, found in every spelling, moved to the top, taken out; the rest of the file as it was."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tde_replication.errors import Conflict, UserError
from tde_replication.postgres.hba_rule import FIRST, HbaRule
from tde_replication.records import Cost
from tests.providers.servers import PASSWORD, Node, cost_of

ADDRESS = "127.0.0.1/32"


def rule(primary: Node, **fields: Any) -> HbaRule:
    return HbaRule.model_validate({**primary.inside, "role": "tested", "address": ADDRESS} | fields)


class HbaFile:
    """pg_hba.conf of the shared primary, put back after each test."""

    def __init__(self, primary: Node) -> None:
        self.primary = primary
        self.path = primary.file("pg_hba.conf")
        self.original = self.path.read_bytes()

    @property
    def text(self) -> str:
        return self.path.read_bytes().decode()

    @property
    def lines(self) -> list[str]:
        """Without comments and blank lines, with single blanks."""
        lines = (" ".join(line.split()) for line in self.text.splitlines())
        return [line for line in lines if line and not line.startswith("#")]

    def write(self, content: str) -> None:
        """Change it as somebody with an editor would, and load it; the file's time is told in whole seconds."""
        before = self.primary.value("SELECT pg_conf_load_time()")
        self.path.write_bytes(content.encode())
        self.primary.rows("SELECT pg_reload_conf()")
        while self.primary.value("SELECT pg_conf_load_time()") == before:
            time.sleep(0.005)

    def put(self, line: str) -> None:
        """Put a line above all others."""
        self.write(f"{line}\n{self.text}")


@pytest.fixture
def hba(primary: Node) -> Iterator[HbaFile]:
    made = HbaFile(primary)
    yield made
    made.write(made.original.decode())


OURS = "host replication tested 127.0.0.1/32 scram-sha-256 # for tested from 127.0.0.1/32 # tde-replication"


def live(declared: HbaRule) -> HbaRule:
    found = declared.read()
    assert found is not None
    return found


def drift(declared: HbaRule) -> set[str]:
    return declared.changed(live(declared))


def test_from_nothing_to_nothing(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    assert declared.read() is None
    made = declared.create()
    assert made.read() == made
    assert hba.lines[0] == OURS
    once = hba.text
    assert declared.create() == made
    assert hba.text == once
    made.delete()
    assert hba.path.read_bytes() == hba.original
    assert declared.read() is None
    made.delete()
    assert hba.path.read_bytes() == hba.original


def test_the_file_keeps_its_owner_and_rights(primary: Node, hba: HbaFile) -> None:
    before = hba.path.stat()
    rule(primary).create()
    after = hba.path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_it_reloads_the_primary_and_the_standbys_that_others_stream_from(primary: Node) -> None:
    declared = rule(primary, upstreams=["db2"], upstream_places={"db2": ("local", "/db2/data")})
    assert [declared.placed(cost) for cost in declared.costs(declared)] == [
        Cost(kind="reload", host="local", data_directory=str(primary.data)),
        Cost(kind="reload", server="db2", host="local", data_directory="/db2/data"),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another account")
def test_a_file_of_another_account_is_not_taken_from_it(primary: Node, hba: HbaFile) -> None:
    """As configuration management leaves it: the server may read it, and not change it."""
    account = hba.path.stat()
    os.chown(hba.path, 0, account.st_gid)
    hba.path.chmod(0o640)
    before = hba.path.stat()
    declared = rule(primary)
    line = "host replication tested 127.0.0.1/32 scram-sha-256"
    try:
        cost = cost_of(declared, None)
        assert cost
        assert cost.kind == "by hand"
        with pytest.raises(Conflict, match=r"pg_hba.conf belongs to root, and .* could not keep that owner") as refused:
            declared.create()
        for text in (cost.text, str(refused.value)):
            assert line in " ".join(text.split())
        assert hba.path.read_bytes() == hba.original
        after = hba.path.stat()
        assert (after.st_ino, after.st_uid, after.st_gid, after.st_mode) == (before.st_ino, 0, before.st_gid, 0o100640)
        hba.path.write_bytes(f"{line} # tde-replication\n".encode() + hba.original)
        assert cost_of(declared, None) == Cost(kind="reload")
        assert drift(declared.create()) == set()
        assert hba.path.stat().st_ino == before.st_ino
    finally:
        os.chown(hba.path, account.st_uid, account.st_gid)
        hba.path.chmod(0o600)


def test_extended_attributes_stay(primary: Node, hba: HbaFile) -> None:
    try:
        os.setxattr(hba.path, "user.comment", b"theirs")
    except OSError:
        pytest.skip("no extended attributes in this file system: they were NOT tested")
    rule(primary).create().delete()
    assert os.getxattr(hba.path, "user.comment") == b"theirs"
    os.removexattr(hba.path, "user.comment")


def test_a_link_stays_one_and_the_file_that_it_leads_to_keeps_its_rights(primary: Node, hba: HbaFile) -> None:
    real = hba.path.with_name("real hba.conf")
    hba.path.rename(real)
    hba.path.symlink_to(real.name)
    before = real.stat()
    try:
        made = rule(primary).create()
        assert hba.path.is_symlink()
        assert real.read_text().count("replication     tested") == 1
        assert (real.stat().st_uid, real.stat().st_mode) == (before.st_uid, before.st_mode)
        assert drift(made) == set()
        made.delete()
        assert real.read_bytes() == hba.original
    finally:
        real.replace(hba.path)


def test_a_replication_connection_gets_in_through_it(primary: Node, hba: HbaFile) -> None:
    hba.write("local all postgres peer map=owner\n")
    primary.rows("CREATE ROLE tested REPLICATION LOGIN")
    try:
        assert "no pg_hba.conf entry" in connected(primary)
        rule(primary).create()
        assert "no pg_hba.conf entry" not in connected(primary)
    finally:
        primary.rows("DROP ROLE tested")


def connected(primary: Node) -> str:
    """What the server says to a physical replication connection."""
    try:
        psycopg.connect(
            f"host=127.0.0.1 port={primary.port} user=tested replication=true connect_timeout=10", password=PASSWORD
        ).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


SPELLINGS = [
    "host replication tested 127.0.0.1/32 scram-sha-256",
    "host\treplication\ttested\t127.0.0.1\t255.255.255.255\tscram-sha-256",
    'host replication "tested" 127.0.0.1/32 scram-sha-256',
    "host replication tested 127.0.0.1/32 scram-sha-256 # by hand",
    "host \\\n replication tested \\\n 127.0.0.1/32 scram-sha-256",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_other_spellings_of_the_same_are_no_drift(primary: Node, hba: HbaFile, spelling: str, end: str) -> None:
    hba.write(f"# our cluster{end}{end}{spelling.replace(chr(10), end)}{end}{hba.text}")
    declared = rule(primary)
    assert drift(declared) == set()
    before = hba.text
    declared.create()
    assert hba.text == before
    declared.delete()
    assert hba.text == before  # it was there before us


@pytest.mark.parametrize(
    ("address", "spelling"),
    [
        ("10.0.0.0/8", "10.0.0.0 255.0.0.0"),
        ("::1/128", "0:0:0:0:0:0:0:1/128"),
        ("::1/128", "::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::/32", "2001:DB8::/32"),
        ("db2.example.net", "DB2.example.NET"),
        (".example.net", ".example.net"),
    ],
)
def test_spellings_of_addresses(primary: Node, hba: HbaFile, address: str, spelling: str) -> None:
    declared = rule(primary, address=address)
    hba.put(f"host replication tested {spelling} scram-sha-256")
    assert drift(declared) == set()
    hba.write(hba.original.decode())
    made = declared.create()
    assert drift(declared) == set()
    made.delete()
    assert hba.path.read_bytes() == hba.original


@pytest.mark.parametrize(
    "role",
    [
        "Mixed Case",
        'say "hi"',
        "a,b",
        "a#b",
        "replication",
        "+group",
        "@file",
        "50%",
        "back\\slash",
        "ünï→",
        "$(id)",
        "it's",
        "x" * 63,
        "é" * 31,
    ],
)
def test_names(primary: Node, hba: HbaFile, role: str) -> None:
    primary.rows(sql.SQL("CREATE ROLE {} REPLICATION LOGIN").format(sql.Identifier(role)))
    try:
        declared = rule(primary, role=role)
        made = declared.create()
        assert made.read() == made
        assert declared.create() == made
        made.delete()
        assert hba.path.read_bytes() == hba.original
    finally:
        primary.rows(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize(
    "edited",
    [
        "host replication tested 0.0.0.0/0 trust",
        "host replication all 127.0.0.1/32 trust",
        "host all tested 127.0.0.1/32 trust",
        "host replication tested 127.0.0.1 255.255.255.0 scram-sha-256",
    ],
)
def test_a_line_of_ours_that_lets_others_in_by_now_goes(primary: Node, hba: HbaFile, edited: str) -> None:
    declared = rule(primary)
    declared.create()
    mark = OURS[OURS.index("# for") :]
    hba.write(hba.text.replace(hba.text.splitlines()[len_of_comments(hba)], f"{edited} {mark}"))
    found = live(declared)
    assert "position" in declared.changed(found), "destroy takes away what is known to be there"
    declared.update(found)
    assert drift(declared) == set()
    assert hba.lines[0] == OURS
    assert len([one for one in hba.lines if "tested" in one]) == 1
    hba.write(f"{edited} {mark}\n{hba.text}")
    assert live(declared).lines == 2
    declared.delete()
    assert [one for one in hba.lines if "tested" in one] == []


def test_a_line_of_ours_that_somebody_commented_out_is_left(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    declared.create()
    hba.write(hba.text.replace("host    replication     tested", "#host    replication     tested"))
    assert declared.read() is None
    declared.create()
    declared.delete()
    assert [one for one in hba.text.splitlines() if "tested" in one and one.startswith("#host")]


def test_a_password_of_somebody_elses_line_is_not_shown(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    declared.create()
    secret = "host replication all 127.0.0.1/32 radius radiusservers=192.0.2.1 radiussecrets=hunter2"
    hba.write(f"{secret}\n{hba.text}")
    found = live(declared)
    assert "hunter2" not in str(found)
    assert "radius with options" in found.position


@pytest.mark.parametrize(
    ("line", "field", "shown"),
    [
        ("host replication tested 127.0.0.1/32 trust", "method", "trust"),
        ("host replication tested 127.0.0.1/32 md5", "method", "md5"),
        ("hostnossl replication tested 127.0.0.1/32 scram-sha-256", "connection_type", "hostnossl"),
    ],
)
def test_an_edited_line_is_shown_and_repaired(primary: Node, hba: HbaFile, line: str, field: str, shown: str) -> None:
    declared = rule(primary)
    declared.create()
    hba.write(hba.text.replace(hba.text.splitlines()[len_of_comments(hba)], f"{line} # tde-replication"))
    found = live(declared)
    assert declared.changed(found) == {field}
    assert getattr(found, field) == shown
    declared.update(found)
    assert drift(declared) == set()
    assert hba.lines[0] == OURS
    assert len([one for one in hba.lines if "tested" in one]) == 1


@pytest.mark.parametrize(
    "theirs",
    [
        "host replication tested 127.0.0.1/32 md5",
        "hostssl replication tested 127.0.0.1/32 scram-sha-256",
        "host replication tested 127.0.0.1/32 reject",
        "host replication tested 127.0.0.1/32 md5\nhost replication tested 127.0.0.1/32 reject",
    ],
)
def test_somebody_else_s_lines_stay_below_ours(primary: Node, hba: HbaFile, theirs: str) -> None:
    """Of an adopted primary, say: they are as they were when ours has gone."""
    hba.put(theirs)
    before = hba.text
    made = rule(primary).create()
    assert hba.lines[:2] == [OURS, theirs.splitlines()[0]]
    assert drift(made) == set()
    once = hba.text
    made.create()
    assert hba.text == once
    made.delete()
    assert hba.text == before


def len_of_comments(hba: HbaFile) -> int:
    return next(n for n, line in enumerate(hba.text.splitlines()) if line and not line.startswith("#"))


def test_a_removed_line_is_gone(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    declared.create()
    hba.write(hba.original.decode())
    assert declared.read() is None


@pytest.mark.parametrize(
    "above",
    [
        "host replication all 0.0.0.0/0 reject",
        "host replication somebody 10.0.0.0/8 md5",
        "host replication all all ident map=owner",
        "host all,replication tested samenet trust",
    ],
)
def test_a_rule_above_ours_is_told_and_ours_goes_back_to_the_top(primary: Node, hba: HbaFile, above: str) -> None:
    declared = rule(primary)
    declared.create()
    hba.put(above)
    found = live(declared)
    assert declared.changed(found) == {"position"}
    assert found.position.startswith("after line 1 (")
    declared.update(found)
    assert drift(declared) == set()
    assert hba.lines[:2] == [OURS, above]


def test_rules_of_other_databases_and_of_sockets_above_ours_do_not_matter(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    declared.create()
    hba.put("local replication all reject\nhost all all 0.0.0.0/0 reject\nhost mydb tested 127.0.0.1/32 trust")
    assert drift(declared) == set()


def test_two_standbys_rules_live_side_by_side(primary: Node, hba: HbaFile) -> None:
    one, other = rule(primary), rule(primary, address="10.0.0.2/32")
    one.create()
    other.create()
    assert drift(one) == set()
    assert drift(other) == set()
    one.delete()
    assert drift(other) == set()
    other.delete()
    assert hba.path.read_bytes() == hba.original


def test_ours_present_twice(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    declared.create()
    hba.write(f"{hba.text}{OURS}\n")
    found = live(declared)
    assert declared.changed(found) == {"lines"}
    assert found.lines == 2
    declared.update(found)
    assert drift(declared) == set()
    assert len([one for one in hba.lines if "tested" in one]) == 1


def test_a_line_that_names_ours_among_others_stays_for_the_others(primary: Node, hba: HbaFile) -> None:
    """Somebody's rule for two roles is not ours to take out."""
    shared = "host replication tested,barman 127.0.0.1/32 scram-sha-256"
    hba.put(shared)
    declared = rule(primary)
    declared.create()
    assert drift(declared) == set()
    assert shared in hba.lines
    assert hba.lines[0] == OURS
    declared.delete()
    assert shared in hba.lines


def test_a_file_changed_but_not_loaded(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    declared.create()
    text = hba.text
    loaded = float(primary.value("SELECT extract(epoch FROM pg_conf_load_time())"))
    # The file's time counts in whole seconds, by a clock of the kernel's that may be some ms behind this one.
    while time.time() < int(loaded) + 1.1:
        time.sleep(0.01)
    hba.path.write_text(f"{text}# changed\n")
    found = live(declared)
    assert declared.changed(found) == {"loaded"}
    declared.update(found)
    assert drift(declared) == set()


def test_an_included_file_changed_but_not_loaded(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    declared.create()
    more = hba.path.with_name("more.conf")
    more.write_text("host replication other 192.0.2.0/24 scram-sha-256\n")
    hba.path.write_text(f"{hba.text}include more.conf\n")
    declared.update(declared)
    loaded = float(primary.value("SELECT extract(epoch FROM pg_conf_load_time())"))
    # The file's time counts in whole seconds, by a clock of the kernel's that may be some ms behind this one.
    while time.time() < int(loaded) + 1.1:
        time.sleep(0.01)
    more.write_text("host replication other 192.0.2.0/25 scram-sha-256\n")
    assert declared.changed(live(declared)) == {"loaded"}
    declared.update(declared)
    assert drift(declared) == set()


def test_a_syntax_error_elsewhere_is_told_and_nothing_changed(primary: Node, hba: HbaFile) -> None:
    declared = rule(primary)
    hba.path.write_text(f"{hba.text}host all all notanip/32 trust\n")
    number = len(hba.text.splitlines())
    before = hba.text
    loaded = primary.value("SELECT pg_conf_load_time()")
    for call in (declared.create, lambda: declared.update(declared), declared.delete):
        with pytest.raises(UserError, match=rf"^line {number} of .*pg_hba.conf is wrong \(.*notanip/32") as told:
            call()
        assert "nothing was changed" in str(told.value)
        assert "\n" not in str(told.value)
    assert hba.text == before
    assert primary.value("SELECT pg_conf_load_time()") == loaded


def test_a_broken_file_that_somebody_loaded_is_told_at_preview(primary: Node, hba: HbaFile) -> None:
    """The server goes on with the former rules until its next start, which would fail."""
    declared = rule(primary)
    declared.create()
    hba.write(f"{hba.text}host all all notanip/32 trust\n")
    found = live(declared)
    assert declared.changed(found) == {"wrong"}
    told = declared.refusal(found) or ""
    assert re.match(
        rf"line {len(hba.text.splitlines())} of .*pg_hba.conf is wrong \(.*notanip/32.*so nothing is changed", told
    )
    hba.write(hba.text.replace("host all all notanip/32 trust\n", ""))
    assert drift(declared) == set()


def test_a_line_of_ours_that_postgresql_rejects_is_taken_back(primary: Node, hba: HbaFile) -> None:
    loaded = primary.value("SELECT pg_conf_load_time()")
    with pytest.raises(UserError, match="the file was put back as it was"):
        rule(primary, address="300.0.0.1/32").create()
    assert hba.path.read_bytes() == hba.original
    assert primary.value("SELECT pg_conf_load_time()") == loaded


def test_a_rule_in_an_included_file_is_seen_and_that_file_left_alone(primary: Node, hba: HbaFile) -> None:
    included = primary.file("more.conf")
    included.write_text("host replication tested 127.0.0.1/32 scram-sha-256\n")
    try:
        hba.put("include more.conf")
        declared = rule(primary)
        assert drift(declared) == set()
        before = hba.text
        declared.create()
        assert hba.text == before
        declared.delete()
        assert included.read_text() == "host replication tested 127.0.0.1/32 scram-sha-256\n"
    finally:
        included.unlink()


@pytest.mark.parametrize("line", ["host replication tested 127.0.0.1/32 md5", "host replication all 0.0.0.0/0 reject"])
def test_a_wrong_rule_in_an_included_file_is_overruled_for_good(primary: Node, hba: HbaFile, line: str) -> None:
    """Ours comes first, so the included one is never reached: no drift for ever after."""
    included = primary.file("more.conf")
    included.write_text(f"{line}\n")
    try:
        hba.put("include more.conf")
        declared = rule(primary)
        declared.create()
        assert hba.lines[0] == OURS
        assert drift(declared) == set()
        assert included.read_text() == f"{line}\n"
    finally:
        included.unlink()


@pytest.mark.parametrize("directive", ["include_if_exists nowhere.conf", "include_dir more.d"])
def test_include_directives_stay(primary: Node, hba: HbaFile, directive: str) -> None:
    directory = primary.file("more.d")
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    hba.put(directive)
    declared = rule(primary)
    declared.create()
    assert hba.lines[:2] == [OURS, directive]
    assert drift(declared) == set()
    directory.rmdir()


def test_a_comment_that_goes_on_over_a_line_end_does_not_swallow_ours(primary: Node, hba: HbaFile) -> None:
    hba.put("# a comment that ends in a backslash \\\nhost replication all all reject")
    declared = rule(primary)
    declared.create()
    assert drift(declared) == set()


@pytest.mark.parametrize("content", ["", "# nothing but a comment", "local all postgres peer map=owner"])
def test_files_without_rules_or_without_a_line_end(primary: Node, hba: HbaFile, content: str) -> None:
    hba.path.write_text(content)
    if "postgres" not in content:
        # Nobody could connect once that is loaded: only the file's text is under test.
        declared = rule(primary)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tde_replication.postgres.hba_rule.reload_configuration", lambda _: None)
            declared.create()
            assert hba.lines == [OURS]
            declared.delete()
            assert hba.text.rstrip() == content
        return
    declared = rule(primary)
    declared.create()
    assert hba.lines == [OURS, content]
    declared.delete()
    assert hba.text == content


def test_defaults_read_well(primary: Node) -> None:
    assert rule(primary).position == FIRST


def test_two_editors_at_once(primary: Node, hba: HbaFile) -> None:
    """Standbys' rules are put in side by side: none is lost."""
    declared = [rule(primary, address=f"10.0.0.{number}/32") for number in range(6)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.create(), declared))
    assert [drift(one) for one in declared] == [set()] * 6
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: one.delete(), declared))
    assert hba.path.read_bytes() == hba.original


def test_a_stranger_keeps_no_editor_from_the_file(primary: Node, hba: HbaFile) -> None:
    """Whoever may connect can take the lock of editors, and wait for it."""
    primary.rows("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    place = f"host=127.0.0.1 port={primary.port} user=stranger password=x dbname=postgres"
    with psycopg.connect(place, autocommit=True) as holding, psycopg.connect(place, autocommit=True) as queued:
        take = b"SELECT pg_advisory_lock(hashtext('tde-replication'), hashtext('pg_hba.conf'))"
        holding.execute(take)
        queued.pgconn.send_query(take)
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(rule(primary).create)
            try:
                made.result(timeout=20)
                assert hba.lines[0] == OURS
            finally:
                holding.close()
                queued.close()
        primary.rows("DROP ROLE stranger")


def test_the_rule_s_file_path_is_told_as_the_server_has_it(primary: Node) -> None:
    assert Path(primary.value("SHOW hba_file")) == primary.file("pg_hba.conf")
