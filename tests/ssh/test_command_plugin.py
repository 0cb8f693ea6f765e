"""The stand-in for pulumi-command, call by call, over a real sshd: what the plugin itself was recorded to do."""

import getpass
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulumi.runtime.proto import provider_pb2

from bootstrap.ports import free_ports
from tests.offline.harness import SIGNATURE, UNKNOWN, Plugin, Refused, is_secret, plain
from tests.ssh.sshd import MISSING, Sshd, generate

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
COMMAND, COPY = "command:remote:Command", "command:remote:CopyToRemote"
ASSET, ARCHIVE = "c44067f5952c0a294b673a41bacd8c17", "0def7320c3a5731c473e5ecbe6d01bc7"
DEFAULTS = {"port": 22, "user": "root", "dialErrorLimit": 10, "perDialTimeout": 15}


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with tempfile.TemporaryDirectory(prefix="tde-") as home:
        Path(home).chmod(0o755)  # another account's key is looked for by that account
        started = Sshd(Path(home), {"Subsystem": "sftp internal-sftp", "AcceptEnv": "PULUMI_*"}).start()
        yield started
        started.stop()


@pytest.fixture(scope="module")
def command() -> Iterator[Plugin]:
    with Plugin("command", environment={"PATH": os.environ["PATH"]}) as plugin:
        yield plugin


@pytest.fixture
def connection(sshd: Sshd) -> dict[str, Any]:
    host_key = " ".join(sshd.known_hosts.read_text().split()[1:])
    found: dict[str, Any] = {"host": sshd.address, "port": sshd.port, "user": getpass.getuser(), "hostKey": host_key}
    return DEFAULTS | found | {"privateKey": sshd.key.read_text(), "dialErrorLimit": 1}


def asset(path: Path | str, signature: str = ASSET) -> dict[str, Any]:
    """As the engine writes it, with a hash of all that is in it."""
    root = Path(path)
    files = [root] if root.is_file() else sorted(one for one in root.rglob("*") if one.is_file())
    content = b"".join(str(one.relative_to(root)).encode() + one.read_bytes() for one in files)
    return {SIGNATURE: signature, "path": str(path), "hash": hashlib.sha256(content).hexdigest()}


def archive(path: Path | str) -> dict[str, Any]:
    return asset(path, ARCHIVE)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("kind", [COMMAND, COPY])
def test_check_fills_the_connection_and_hides_it(command: Plugin, kind: str) -> None:
    proxied = {"host": "h", "proxy": {"host": "p", "user": "u"}}
    source = {SIGNATURE: ASSET, "path": "/f", "hash": "0"}
    copied = {"source": source, "remotePath": "/g"} if kind == COPY else {}
    inputs, failures = command.resource(kind).check({"connection": proxied} | copied)
    assert failures == []
    assert is_secret(inputs["connection"])
    assert plain(inputs["connection"]) == DEFAULTS | {"host": "h", "proxy": DEFAULTS | {"host": "p", "user": "u"}}
    assert inputs.keys() == {"connection", *copied}  # nothing else has a default
    assert command.resource(kind).check({"connection": UNKNOWN} | copied)[1] == []


def test_check_refuses_what_it_does_not_serve(command: Plugin) -> None:
    resource = command.resource(COMMAND)
    unserved = "the offline stand-in for pulumi-command does not serve it"
    assert resource.check({"connection": {"host": "h", "password": "x"}})[1] == [f"connection.password: {unserved}"]
    assert resource.check({"connection": {"host": "h"}, "environment": {}})[1] == [f"environment: {unserved}"]


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        (COMMAND, {"create": "true"}, ["connection: Missing required field 'connection' on 'remote.CommandInputs'"]),
        (
            COMMAND,
            {"connection": {"port": 22}},
            [
                (
                    "connection: An error occurred decoding 'CommandInputs.connection': 1 failures decoding:\n"
                    "\thost: Missing required field 'host' on 'remote.Connection'"
                )
            ],
        ),
        (
            COMMAND,
            {"connection": {"host": "h", "proxy": {"user": "u"}}},
            [
                (
                    "connection: An error occurred decoding 'CommandInputs.connection': 1 failures decoding:\n"
                    "\tproxy: An error occurred decoding 'Connection.proxy': 1 failures decoding:\n"
                    "\thost: Missing required field 'host' on 'remote.ProxyConnection'"
                )
            ],
        ),
        (
            COPY,
            {"connection": {"host": "h"}},
            [
                "source: Missing required field 'source' on 'remote.CopyToRemoteInputs'",
                "remotePath: Missing required field 'remotePath' on 'remote.CopyToRemoteInputs'",
                "asset: either asset or archive must be set",
            ],
        ),
    ],
)
def test_check_names_what_is_missing(command: Plugin, kind: str, inputs: dict[str, Any], expected: list[str]) -> None:
    assert command.resource(kind).check(inputs)[1] == expected


def test_how_a_provider_has_changed_is_for_the_engine_to_say(command: Plugin) -> None:
    with pytest.raises(Refused, match="DiffConfig is not implemented"):
        command.call("DiffConfig", provider_pb2.DiffRequest())


@pytest.mark.parametrize(
    ("old", "new", "expected", "replaces"),
    [
        ({"create": "a"}, {"create": "b"}, {"create": "UPDATE"}, []),
        ({"delete": "a"}, {}, {"delete": "DELETE"}, []),
        ({}, {"update": "a"}, {"update": "ADD"}, []),
        ({}, {"stdin": ""}, {"stdin": "ADD"}, []),  # "" is not nothing here
        ({}, {"addPreviousOutputInEnv": False}, {"addPreviousOutputInEnv": "ADD"}, []),
        ({"connection": {"host": "h"}}, {"connection": {"host": "i"}}, {"connection": "UPDATE"}, []),
        ({"connection": {"dialErrorLimit": 3}}, {"connection": {"dialErrorLimit": 4}}, {"connection": "UPDATE"}, []),
        ({"triggers": [1]}, {"triggers": [2]}, {"triggers[0]": "UPDATE"}, []),  # the SDK makes a replacement of it
        ({"triggers": [1]}, {}, {"triggers": "DELETE_REPLACE"}, ["triggers"]),
        ({"create": "a", "stdout": "x", "stderr": ""}, {"create": "a"}, {}, []),
        ({"stdin": "x"}, {"stdin": UNKNOWN}, {"stdin": "UPDATE"}, []),
    ],
)
def test_what_a_change_of_a_command_means(
    command: Plugin, old: dict[str, Any], new: dict[str, Any], expected: dict[str, str], replaces: list[str]
) -> None:
    assert command.resource(COMMAND).changes(old, new) == expected
    answer = command.resource(COMMAND).diff(old, new)
    assert (list(answer.replaces), answer.deleteBeforeReplace) == (replaces, False)


def test_preview_connects_to_nobody(command: Plugin) -> None:
    nowhere = {"host": "127.0.0.1", "port": 1, "dialErrorLimit": 0}
    inputs = plain(command.resource(COMMAND).check({"connection": nowhere, "create": "true", "delete": "true"})[0])
    identity, outputs = command.resource(COMMAND, "db1-unit").create(inputs, preview=True)
    assert re.fullmatch(r"db1-unit[0-9a-f]{8}", identity)
    assert outputs["stdout"] == outputs["stderr"] == UNKNOWN
    assert is_secret(outputs["connection"])
    state = inputs | {"stdout": "x", "stderr": ""}
    shown = command.resource(COMMAND).update("i", state, inputs | {"create": "false"}, preview=True)
    assert [shown[name] for name in ("create", "stdout", "stderr")] == ["false", UNKNOWN, UNKNOWN]
    echoed, hidden = {**state, "connection": outputs["connection"]}, {**inputs, "connection": outputs["connection"]}
    assert command.resource(COMMAND).read("i", state, inputs) == ("i", echoed, hidden)


def test_a_command(command: Plugin, connection: dict[str, Any], tmp_path: Path) -> None:
    resource = command.resource(COMMAND, "db1-packages")
    inputs = {
        "connection": connection,
        "create": f"cat >{tmp_path}/made; echo made; echo told >&2; echo",
        "update": 'echo "before: $PULUMI_COMMAND_STDOUT, $PULUMI_COMMAND_STDERR"',
        "delete": f'echo "$PULUMI_COMMAND_STDOUT" >{tmp_path}/removed',
        "stdin": "hush",
    }
    identity, state = resource.create(inputs)
    assert re.fullmatch(r"db1-packages[0-9a-f]{8}", identity)
    assert (state["stdout"], state["stderr"]) == ("made\n", "told")  # the last newline is cut
    assert (tmp_path / "made").read_text() == "hush"
    assert resource.read(identity, state, inputs)[1] == state
    assert resource.changes(plain(state), inputs) == {}

    state = resource.update(identity, state, inputs | {"stdin": "other"})
    assert state["stdout"] == "before: made\n, told"
    without = {key: value for key, value in inputs.items() if key != "update"}
    state = resource.update(identity, state, without)
    assert state["stdout"] == "made\n"  # no `update`: `create` again
    resource.delete(identity, state)
    assert (tmp_path / "removed").read_text() == "made\n\n"

    quiet = {
        "connection": connection,
        "create": "true",
        "addPreviousOutputInEnv": False,
        "update": "echo [$PULUMI_COMMAND_STDOUT]",
    }
    assert resource.update("i", quiet | {"stdout": "x", "stderr": ""}, quiet)["stdout"] == "[]"
    resource.delete("i", {"connection": connection, "create": "true"})  # no `delete`: nothing


@pytest.mark.parametrize(
    ("logging", "shown"),
    [
        (None, ["one", "two", "told"]),
        ("stdoutAndStderr", ["one", "two", "told"]),
        ("stdout", ["one", "two"]),
        ("stderr", ["told"]),
        ("none", []),
    ],
)
def test_what_a_command_prints_is_shown_as_it_comes(
    connection: dict[str, Any], logging: str | None, shown: list[str]
) -> None:
    inputs = {"connection": connection, "create": "echo one; echo told >&2; echo two"}
    with Plugin("command", environment={"PATH": os.environ["PATH"]}) as plugin:
        _, state = plugin.resource(COMMAND).create(inputs | ({"logging": logging} if logging else {}))
        assert (state["stdout"], state["stderr"]) == ("one\ntwo", "told")
        assert plugin.engine.passing == shown


def test_input_that_a_command_does_not_read(command: Plugin, connection: dict[str, Any]) -> None:
    """More than a pipe holds, before output that is more than a pipe holds."""
    inputs = {"connection": connection, "create": "head -c 300000 /dev/zero | tr '\\0' x", "logging": "none"}
    assert len(command.resource(COMMAND).create(inputs | {"stdin": "y" * 300_000})[1]["stdout"]) == 300_000


def test_a_command_that_fails_runs_once_and_is_told(
    command: Plugin, connection: dict[str, Any], tmp_path: Path
) -> None:
    resource = command.resource(COMMAND)
    for status in (7, 255):
        text = f'echo "out" | tee -a {tmp_path}/ran; echo err >&2; exit {status}'
        with pytest.raises(Refused) as refused:
            resource.create({"connection": connection, "create": text})
        assert str(refused.value) == f"Process exited with status {status}: running {json.dumps(text)}:\nout\nerr\n"
        assert refused.value.kept is None
    assert (tmp_path / "ran").read_text() == "out\nout\n"
    old = {"connection": connection, "create": "true", "stdout": "", "stderr": ""}
    with pytest.raises(Refused, match="status 7") as refused:
        resource.update("i", old, old | {"create": "exit 7"})
    assert refused.value.kept is None  # the old state stands


@pytest.mark.parametrize("kind", [COMMAND, COPY])
def test_trouble_with_the_connection(command: Plugin, connection: dict[str, Any], tmp_path: Path, kind: str) -> None:
    for name in ("other", "stranger"):
        generate(tmp_path / name)
    port = free_ports(1, "127.0.0.1")[0]
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    troubles: list[tuple[dict[str, Any], str]] = [
        ({"port": port}, rf"after 1 failed attempts: dial tcp 127\.0\.0\.1:{port}: connect: connection refused"),
        ({"hostKey": other}, "after 1 failed attempts: ssh: handshake failed: ssh: host key mismatch"),
        (
            {"privateKey": (tmp_path / "stranger").read_text()},
            (
                r"after 1 failed attempts: ssh: handshake failed: ssh: unable to authenticate, attempted methods "
                r"\[none publickey\], no supported methods remain$"
            ),
        ),
        ({"host": "no.such.invalid"}, "after 1 failed attempts: dial tcp: lookup no.such.invalid: no such host"),
        ({"hostKey": ""}, "^failed to parse host key: ssh: no key found"),
        ({"privateKey": "none"}, "^ssh: no key found"),
    ]
    more: dict[str, Any] = (
        {"create": "true"} if kind == COMMAND else {"source": asset(tmp_path / "other"), "remotePath": "x"}
    )
    for change, text in troubles:
        command.engine.passing.clear()
        with pytest.raises(Refused, match=text) as refused:
            command.resource(kind).create({"connection": connection | change, **more})
        assert command.engine.passing == ["Dial 1/1 failed: retrying"] * ("attempts" in text)
        assert "PRIVATE" not in str(refused.value)


def test_a_jump_host_and_any_host_key(command: Plugin, connection: dict[str, Any]) -> None:
    proxied = connection | {"proxy": dict(connection)}
    assert command.resource(COMMAND).create({"connection": proxied, "create": "echo $$"})[1]["stdout"].isdigit()
    anyone = {key: value for key, value in connection.items() if key != "hostKey"}
    assert command.resource(COMMAND).create({"connection": anyone, "create": "echo hi"})[1]["stdout"] == "hi"


@pytest.mark.parametrize(
    ("old", "new", "expected", "replaces"),
    [
        ({"remotePath": "a"}, {"remotePath": "b"}, {"remotePath": "UPDATE"}, []),
        ({"triggers": [1]}, {"triggers": [2]}, {"triggers[0]": "UPDATE"}, []),  # the SDK makes a replacement of it
        ({}, {"triggers": [2]}, {"triggers": "ADD_REPLACE"}, ["triggers"]),
        ({"connection": {"host": "h"}}, {"connection": {"host": "i"}}, {"connection": "UPDATE"}, []),
    ],
)
def test_what_a_change_of_a_copy_means(
    command: Plugin, old: dict[str, Any], new: dict[str, Any], expected: dict[str, str], replaces: list[str]
) -> None:
    assert command.resource(COPY).changes(old, new) == expected
    assert list(command.resource(COPY).diff(old, new).replaces) == replaces


def test_a_source_is_compared_by_what_is_in_it(command: Plugin) -> None:
    sources = [{SIGNATURE: ASSET, "path": path, "hash": text} for path, text in (("/a", "1"), ("/b", "1"), ("/b", "2"))]
    copy = command.resource(COPY)
    assert copy.changes({"source": sources[0]}, {"source": sources[1]}) == {}
    assert copy.changes({"source": sources[1]}, {"source": sources[2]}) == {"source": "UPDATE"}
    assert copy.changes({"source": sources[0]}, {"source": sources[0] | {SIGNATURE: ARCHIVE}}) == {"source": "UPDATE"}


def test_sources_without_a_path_are_refused(command: Plugin) -> None:
    def wrong(source: Any) -> str:
        inputs = {"connection": {"host": "h"}, "remotePath": "x", "source": source}
        return "".join(command.resource(COPY).check(inputs)[1])

    assert (
        wrong({SIGNATURE: ARCHIVE, "hash": "0", "assets": {}})
        == "archive: archive must be a path to a file or directory"
    )
    assert wrong({SIGNATURE: ASSET, "hash": "0", "uri": "http://x"}).startswith(
        "asset: asset must be a path-based file asset"
    )
    assert wrong(UNKNOWN) == ""


def test_a_file_is_copied(command: Plugin, connection: dict[str, Any], tmp_path: Path) -> None:
    copy = command.resource(COPY)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))  # of several packets
    source.chmod(0o700)
    target = tmp_path / "new" / "above" / "target"
    inputs = {"connection": connection, "source": asset(source), "remotePath": str(target)}
    identity, outputs = copy.create(inputs, preview=True)
    assert (identity, outputs["source"], target.parent.exists()) == ("", UNKNOWN, False)

    identity, state = copy.create(inputs)
    assert re.fullmatch(r"[0-9a-f]{8}", identity)
    assert is_secret(state["connection"])
    assert plain(state) == inputs
    assert target.read_bytes() == source.read_bytes()
    assert (mode(target), mode(target.parent)) == (0o644, 0o755)
    assert copy.read(identity, state, inputs) == (identity, state, {**inputs, "connection": state["connection"]})

    target.chmod(0o600)
    source.write_text("short")
    changed = inputs | {"source": asset(source)}
    state = copy.update(identity, state, changed)
    assert (target.read_text(), mode(target)) == ("short", 0o600)  # what is there keeps its mode

    moved = changed | {"remotePath": str(tmp_path / "moved")}
    state = copy.update(identity, state, moved)
    assert (tmp_path / "moved").read_text() == target.read_text() == "short"
    (tmp_path / "moved").unlink()
    copy.update(identity, state, moved | {"connection": connection | {"dialErrorLimit": 2}})
    assert not (tmp_path / "moved").exists()  # neither source nor path changed: nothing is copied
    copy.delete(identity, state)
    assert target.exists()

    (tmp_path / "directory").mkdir()
    copy.create(inputs | {"source": asset(source), "remotePath": str(tmp_path / "directory")})
    assert (tmp_path / "directory" / "source").read_text() == "short"


def test_a_relative_path_begins_at_the_login_s_home(
    command: Plugin, connection: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x")
    name = f"copied-{os.urandom(4).hex()}"
    command.resource(COPY).create({"connection": connection, "source": asset(tmp_path / "f"), "remotePath": name})
    target = Path(os.path.expanduser(f"~{getpass.getuser()}"), name)  # noqa: PTH111 - not $HOME
    assert target.read_text() == "x"
    target.unlink()


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_is_copied(command: Plugin, connection: dict[str, Any], tmp_path: Path, *, there: bool) -> None:
    source = tmp_path / "conf"
    (source / "d" / "empty").mkdir(parents=True)
    (source / "d" / "f").write_text("1")
    (source / "d" / "f").chmod(0o755)
    for path, expected in ((str(source), "conf/"), (f"{source}/", "")):
        target = tmp_path / f"to{len(expected)}"
        if there:
            target.mkdir()
        inputs = {"connection": connection, "source": archive(path), "remotePath": str(target)}
        identity, state = command.resource(COPY).create(inputs)
        found = {str(one.relative_to(target)) + "/" * one.is_dir() for one in target.rglob("*")}
        assert found - {"conf/"} == {expected + name for name in ("d/", "d/empty/", "d/f")}
        assert (mode(target / expected / "d" / "f"), mode(target / expected / "d")) == (0o644, 0o755)
        (source / "d" / "f").rename(source / "d" / "g")
        command.resource(COPY).update(identity, state, inputs | {"source": archive(path)})
        assert {one.name for one in (target / expected / "d").iterdir()} == {"empty", "f", "g"}  # the old one stays
        (source / "d" / "g").rename(source / "d" / "f")


def test_trouble_with_the_files(command: Plugin, connection: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "d").mkdir()

    def refused(source: dict[str, Any], target: str) -> str:
        with pytest.raises(Refused) as refused:
            command.resource(COPY).create({"connection": connection, "source": source, "remotePath": target})
        assert refused.value.kept is None
        return str(refused.value)

    file, directory, gone = (
        asset(tmp_path / "f"),
        archive(tmp_path / "d"),
        {SIGNATURE: ASSET, "path": "/no/such", "hash": "0"},
    )
    assert refused(gone, f"{tmp_path}/new/x") == "open /no/such: no such file or directory"
    assert not (tmp_path / "new").exists()
    assert refused(file, "/proc/new/x").startswith("failed to create parent directories for /proc/new/x: ")
    (tmp_path / "d" / "link").symlink_to(tmp_path)
    link, linked = f"{tmp_path}/d/link", f"{tmp_path}/linked/d/link"
    text = f"failed to copy file {link} to remote path {linked}: read {link}: is a directory"
    assert refused(archive(tmp_path / "d"), f"{tmp_path}/linked") == text
    (tmp_path / "d" / "link").unlink()
    under = f"{tmp_path}/f/d"
    assert refused(directory, str(tmp_path / "f")) == f"failed to create remote directory {under}: file does not exist"
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "d").write_text("")
    assert refused(directory, str(tmp_path / "to")) == f"remote path {tmp_path}/to/d exists but is not a directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="another account needs root")
def test_a_path_that_the_login_may_not_see(command: Plugin, connection: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Refused) as refused:
        command.resource(COPY).create(
            {
                "connection": connection | {"user": "daemon"},
                "source": asset(tmp_path / "f"),
                "remotePath": str(closed / "f"),
            }
        )
    assert str(refused.value) == f"failed to stat remote path {closed}/f: permission denied"
