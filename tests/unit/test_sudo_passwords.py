"""sudo's passwords, each bound to a machine and its host key; and files of host keys."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tde_replication import credentials
from tde_replication.errors import UserError
from tde_replication.host_keys import is_key
from tde_replication.hosts.ssh import sudo
from tde_replication.hosts.ssh.known_hosts import expect_known_hosts
from tde_replication.hosts.ssh.login import Login

SECRET = "it's the 'password'"


def key(kind: str = "ssh-ed25519", content: bytes = b"0123") -> str:
    blob = len(kind).to_bytes(4, "big") + kind.encode() + content
    return f"{kind} {base64.b64encode(blob).decode()}"


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(sudo.ENVIRONMENT, raising=False)
    credentials.configure({sudo.SETTING: None}.get)
    yield
    credentials.configure({sudo.SETTING: None}.get)


def test_a_machine_gets_its_own_and_no_other() -> None:
    one, two = key(content=b"1"), key(content=b"2")
    credentials.configure(
        {
            sudo.SETTING: json.dumps(
                {f"db1.example.net {one} deploy@here": "first", f"[db2]:2222,[::1]:2222 {two}": "second"}
            )
        }.get
    )
    assert sudo.password("db1.example.net", None) == sudo.password("db1.example.net", 22) == sudo.Password("first", one)
    assert sudo.password("db2", 2222) == sudo.password("::1", 2222) == sudo.Password("second", two)
    for host, port in (("db1.example.net", 2222), ("DB1.example.net", None), ("db2", None), ("evil", None), ("", None)):
        assert sudo.password(host, port) is None
    assert "first" not in repr(sudo.password("db1.example.net", None))


def test_a_login_is_asked_where_it_has_one_and_trusts_that_key_alone() -> None:
    credentials.configure({sudo.SETTING: json.dumps({f"db1 {key()}": SECRET})}.get)
    asked, other = Login("db1", user="deploy", known_hosts="stacks/known_hosts"), Login("db2", user="deploy")
    assert asked.asks("postgres")
    assert not other.asks("postgres")
    assert (asked.answer, other.answer) == (f"{SECRET}\n", "")
    [file] = [word for word in asked.options() if word.startswith("-oUserKnownHostsFile=")]
    assert "stacks" not in file
    assert Path(file.partition("=")[2].strip('"')).read_text() == f"* {key()}\n"
    assert "-oGlobalKnownHostsFile=none" in asked.options()


def test_the_environments_go_before_the_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.configure({sudo.SETTING: json.dumps({f"db1 {key()}": "of the stack", f"db2 {key()}": "two"})}.get)
    monkeypatch.setenv(sudo.ENVIRONMENT, json.dumps({f"db1 {key()}": "of the environment"}))
    assert sudo.password("db1", None) == sudo.Password("of the environment", key())
    assert sudo.password("db2", None) == sudo.Password("two", key())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            SECRET,
            "one password for all machines would be sent to each, .*Bind each to its machine's line of known_hosts",
        ),
        ("12345", "one password for all machines"),
        ('["x"]', "one password for all machines"),
        (json.dumps({"db1": SECRET}), "its line 1 does not name a machine and a host key as known_hosts does"),
        (
            json.dumps({f"db1 {key()}": "x", "db2 ssh-ed25519 AAAA": SECRET}),
            "its line 2 does not name a machine and a host key",
        ),
        (json.dumps({f"* {key()}": SECRET}), "its line 1 does not name a machine"),
        (json.dumps({f"|1|a|b {key()}": SECRET}), "its line 1 does not name a machine"),
        (json.dumps({f"db1 {key()}": f"{SECRET}\n"}), "the password in its line 1 must be a text"),
        (json.dumps({f"db1 {key()}": [SECRET]}), "the password in its line 1 must be a text"),
    ],
)
def test_what_binds_nothing_is_refused_and_not_shown(text: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("tde-replication:sudoPassword", sudo.ENVIRONMENT):
        credentials.configure({sudo.SETTING: text if setting != sudo.ENVIRONMENT else None}.get)
        if setting == sudo.ENVIRONMENT:
            monkeypatch.setenv(sudo.ENVIRONMENT, text)
        with pytest.raises(UserError, match=f"^{setting}: .*{sentence}") as told:
            sudo.password("db1", None)
        assert SECRET not in str(told.value)
        assert sudo.mistakes(secret=True) == [str(told.value)]


def test_one_in_clear_is_refused() -> None:
    credentials.configure({sudo.SETTING: json.dumps({f"db1 {key()}": SECRET})}.get)
    [told] = sudo.mistakes(secret=False)
    assert told.startswith("sudoPassword: the stack file has it in clear: `pulumi config set --secret")
    assert sudo.mistakes(secret=True) == []


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa", "sk-ssh-ed25519@openssh.com"])
def test_keys(kind: str) -> None:
    assert is_key(key(kind))
    assert not is_key(key(kind).replace(kind, "ssh-dss"))


@pytest.mark.parametrize(
    "text",
    [
        f"db1 {key()}",
        f"# a comment\n\n|1|abc=|def= {key()} comment\n@cert-authority *.example.net {key()}\n[::1]:22 {key('ssh-rsa')}",
        "",
    ],
)
def test_files_of_host_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "known").write_text(text)
    expect_known_hosts(tmp_path / "known")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"config:\n  tde-replication:cluster: {{}}\n# x\nevil {key()}\n".encode(), "line 1 of .* is not a host key"),
        (f"evil {key()}\nconfig: 1\n".encode(), "line 2 of .* is not a host key"),
        (b"db1 ssh-ed25519 AAAA\n", "line 1 of .* is not a host key"),
        (b"\x7fELF\xff\xfe", "line 1 of .* is not a host key"),
        (b"#" * (1 << 21), "is not a file of host keys"),
    ],
)
def test_a_file_that_holds_anything_else_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """Of a stack file with a line of known_hosts in it, ssh would take that line."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match=f"host.knownHosts: .*{says}"):
        expect_known_hosts(tmp_path / "file")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path("/dev/zero")):
        with pytest.raises(UserError, match="is not a file of host keys"):
            expect_known_hosts(path)
