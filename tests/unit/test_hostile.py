"""What comes from outside may be anything: Pulumi's state, a stack file, files in a data directory, the answers of a machine. The
code takes it, or refuses it with a sentence. No other error, and no wait without an end.

Nothing here is a machine: `Hostile` answers what hypothesis thinks of, and keeps nothing.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from tde_replication import console, hosts, stack_file
from tde_replication.adapter import Provider
from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts import file_scripts, files, listeners
from tde_replication.hosts.base import FileStatus, Host, Postmaster
from tde_replication.hosts.facts import Facts
from tde_replication.hosts.files import Ended
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.hosts.superuser import Connection
from tde_replication.postgres import copying, resources
from tde_replication.postgres.control import control_data, position, too_low
from tde_replication.postgres.marker import marker
from tde_replication.preflight.vault import check_vault
from tde_replication.reconciler import Resource
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.client import Client
from tde_replication.vault.key_age import newest_key
from tde_replication.vault.names import VaultNames
from tde_replication.vault.secret import SecretContent
from tde_replication.vault.token import Token

SECONDS = 30.0
CLASSES = [found for found in vars(resources).values() if isinstance(found, type)]
PROVIDERS = [found for found in CLASSES if issubclass(found, Provider) and "kind" in vars(found)]
VAULT_KEYS = [
    "data",
    "metadata",
    "created_time",
    "auth",
    "errors",
    "keys",
    "options",
    "policy",
    "type",
    "version",
    "deletion_time",
    "ttl",
    "period",
]
DEEP = "[" * 2000  # more than Python takes
words = st.sampled_from(
    [
        *(
            "",
            "\0",
            "\n",
            "/",
            "..",
            "../../etc",
            "-",
            "~",
            "%s",
            "{}",
            "'; --",
            '"',
            "\ud800",
            "é" * 70,
            "x" * 300,
            "1" * 5000,
        ),
        *(
            "local",
            "ssh://",
            "ssh://[::1",
            "ssh://h:99999",
            "ssh://h:x?account=%00",
            "docker://",
            "docker://x/../y",
            "ftp://h",
        ),
        *(
            "/srv/db2/data",
            "/srv/\0",
            "tde_db2",
            "7579821021830312345",
            "0/0",
            "0/",
            "FFFFFFFFF/1",
            "18446744073709551616/0",
        ),
        *("in production", "0600", "9999", "0o7", "2026-01-01T00:00:00Z", "-1", "1e400", "nan", DEEP),
    ]
)
texts = words | st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
contents = st.none() | texts.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=40)


class Hostile(Host):
    """A machine that answers anything, and does nothing."""

    address = "hostile"
    account = "postgres"
    administrators = ()

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw

    def _answer(self, strategy: st.SearchStrategy[Any]) -> Any:
        if self._draw(st.integers(0, 9)) == 0:
            raise self._draw(st.sampled_from([Unavailable("it does not answer"), UserError("permission denied")]))
        return self._draw(strategy)

    def run(self, command: Sequence[str], **_: Any) -> str:
        if self._draw(st.booleans()):
            raise CommandFailed(command[0], self._draw(st.integers(-20, 255)), self._draw(texts))
        return str(self._answer(texts | control_texts | st.lists(texts, max_size=6).map("\n".join)))

    def output(self, command: Sequence[str]) -> str:
        return self.run(command)

    def look(self, **_: Any) -> None:
        pass

    def read(self, path: PurePosixPath, *, follow: bool = False) -> bytes | None:
        del path, follow
        found: bytes | None = self._answer(contents | markers.map(str.encode))
        return found

    def real(self, path: PurePosixPath) -> PurePosixPath:
        found: PurePosixPath = self._answer(st.just(path) | texts.map(PurePosixPath))
        return found

    def replace(self, path: PurePosixPath, content: bytes) -> None:
        del path, content
        self._answer(st.none())

    def status(self, path: PurePosixPath) -> FileStatus | None:
        del path
        kinds = st.sampled_from(["file", "directory", "other"])
        found: FileStatus | None = self._answer(st.none() | st.builds(FileStatus, kinds, texts, st.integers(0, 0o7777)))
        return found

    def listing(self, path: PurePosixPath) -> list[str]:
        del path
        return sorted(self._answer(st.lists(texts | st.just("0" * 24), max_size=3)))

    def write(self, path: PurePosixPath, content: bytes, *, mode: int) -> None:
        del path, content, mode
        self._answer(st.none())

    def make_directory(self, path: PurePosixPath) -> None:
        del path
        self._answer(st.none())

    def rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        del old, new
        self._answer(st.none())

    def remove(self, path: PurePosixPath) -> None:
        del path
        self._answer(st.none())

    def start(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        del binaries, data_directory
        return 0

    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        del data_directory, mark
        return str(self._answer(texts))

    def postmaster(self, data_directory: PurePosixPath) -> Postmaster | None:
        del data_directory
        found: Postmaster | None = self._answer(
            st.none() | st.builds(Postmaster, st.integers(1, 9), st.integers(1, 9), texts, st.booleans())
        )
        return found

    def stop(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        del binaries, data_directory, deadline
        self._answer(st.none())

    def connect(self, data_directory: PurePosixPath, database: str, **options: Any) -> Connection:
        del database, options
        raise Unavailable(f"the server on {data_directory} does not answer")


LABELS = (
    *("Database system identifier", "Database cluster state", "Latest checkpoint's TimeLineID"),
    *("Latest checkpoint's REDO WAL file", "Bytes per WAL segment", "Latest checkpoint location"),
    *("Minimum recovery ending location", "max_connections setting"),
)
GOOD = {
    "Database system identifier": "7579821021830312345",
    "Database cluster state": "in archive recovery",
    "Latest checkpoint's TimeLineID": "1",
    "Latest checkpoint's REDO WAL file": "000000010000000000000003",
    "Bytes per WAL segment": "16777216",
    "Latest checkpoint location": "0/3000158",
    "Minimum recovery ending location": "0/0",
}
control_texts = st.dictionaries(st.sampled_from(LABELS), texts, max_size=3).map(
    lambda changed: "".join(f"{name}: {value}\n" for name, value in {**GOOD, **changed}.items())
)
markers = st.dictionaries(st.sampled_from(["stack", "name", "madeAt", "kind"]), json_values, max_size=4).map(json.dumps)


@contextmanager
def refused_in_a_sentence() -> Iterator[None]:
    """Or taken; and soon."""
    began = time.monotonic()
    with suppress(UserError):
        yield
    assert time.monotonic() - began < SECONDS


def properties(kind: type[Resource]) -> st.SearchStrategy[dict[str, Any]]:
    """What a state may hold of a resource: a few of its properties are anything, the others as they should be."""
    schema = kind.model_json_schema()
    good: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in schema["properties"].items():
        types = [one.get("type") for one in [field, *field.get("anyOf", [])]]
        if "default" in field:
            good[name] = st.just(field["default"])
        elif "string" in types:
            good[name] = st.just("/srv/db2/data" if "irectory" in name or name == "path" else "7579821021830312345")
        elif "$ref" in field:
            good[name] = st.just({"host": "h", "port": 5432, "role": "r", "tls": "prefer", "passfile": "/srv/db2/p"})
        else:
            good[name] = st.just({"array": [], "object": {}, "boolean": False}.get(str(types[0]), 1))
    wrong = st.dictionaries(st.sampled_from(sorted(good)), json_values, max_size=3)
    return st.tuples(st.fixed_dictionaries(good), wrong).map(lambda pair: {**pair[0], **pair[1]})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[st.DataObject], Hostile]:
    monkeypatch.setattr(console, "say", lambda *_, **__: None)

    def put(data: st.DataObject) -> Hostile:
        made = Hostile(data)
        monkeypatch.setattr(hosts, "host", lambda _: made)
        return made

    return put


anything = settings(
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],  # to make an example smaller takes longer than to find it
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.__name__)
@anything
@given(st.data())
def test_a_state_and_a_machine(
    machine: Callable[[st.DataObject], Hostile], provider: type[Provider], data: st.DataObject
) -> None:
    machine(data)
    made = provider()
    olds, news = data.draw(properties(made.kind)), data.draw(properties(made.kind))
    identifier = data.draw(texts)
    for call in (
        lambda: made.check(dict(olds), dict(news)),
        lambda: made.check({}, dict(news)),
        lambda: made.diff(identifier, olds, news),
        lambda: made.read(identifier, olds),
        lambda: made.delete(identifier, olds),
    ):
        with refused_in_a_sentence():
            call()


@pytest.mark.parametrize(
    "provider", [resources.InitializedDirectoryProvider, resources.AdoptedDirectoryProvider, resources.HostFileProvider]
)
@anything
@given(st.data())
def test_what_is_there_when_something_is_made(
    machine: Callable[[st.DataObject], Hostile], provider: type[Provider], data: st.DataObject
) -> None:
    machine(data)
    made = provider()
    props = data.draw(properties(made.kind))
    with refused_in_a_sentence():
        made.create(props)
    with refused_in_a_sentence():
        made.update("", data.draw(properties(made.kind)), props)


@anything
@given(st.data())
def test_the_files_of_a_data_directory(data: st.DataObject) -> None:
    host, place = Hostile(data), PurePosixPath("/srv/db2/data")
    with refused_in_a_sentence():
        made = marker(host, place)
        assert all(isinstance(value, str) for value in made.values())
    with refused_in_a_sentence():
        found = control_data(host, place, place)
        assert found.segment(found.redo_wal_file) >= 0
    with refused_in_a_sentence():
        assert all(value.isdecimal() for value in too_low(host, place, place).values())
    with refused_in_a_sentence():
        found_listener = listeners.listener(host, ["*"], 5432)
        if found_listener:
            str(listeners.holder(host, found_listener))


@anything
@given(texts | st.text())
def test_an_lsn(text: str) -> None:
    with refused_in_a_sentence():
        assert position(text) >= 0


@anything
@given(texts | st.text())
def test_a_line_of_progress(line: str) -> None:
    copying.Copy("base backup").tell(line)


@anything
@given(texts | st.text())
def test_an_address_of_a_host(address: str) -> None:
    with refused_in_a_sentence():
        hosts.host(address)


document = json_values | st.dictionaries(
    st.sampled_from(["primary", "servers", "standbys", "vault", "key", "replication", "encryption", "database"]),
    json_values,
    max_size=4,
)


@anything
@given(document | document.map(json.dumps) | texts)
def test_a_stack_file(declared: Any) -> None:
    with refused_in_a_sentence():
        stack_file.parse("stacks/Pulumi.x.yaml", declared)


@anything
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "host": json_values | st.fixed_dictionaries({"ssh": texts}) | st.fixed_dictionaries({"docker": texts}),
            **dict.fromkeys(("port", "listen", "settings", "adopt"), json_values),
            **dict.fromkeys(("dataDirectory", "binaries", "address"), texts),
        },
    )
)
def test_a_server_of_a_stack_file(server: Mapping[str, Any]) -> None:
    with refused_in_a_sentence():
        stack_file.parse("stacks/Pulumi.x.yaml", {"primary": "db1", "servers": {"db1": server, "db2": server}})


def test_the_marker_is_not_read_without_an_end() -> None:
    class Deep(Hostile):
        def read(self, path: PurePosixPath, *, follow: bool = False) -> bytes | None:
            del path, follow
            return DEEP.encode()

    with suppress(UserError):
        assert marker(Deep.__new__(Deep), PurePosixPath("/srv")) == {}


class Answering(LocalHost):
    """A machine whose shell answers anything to a script."""

    def __init__(self, ended: Callable[[], Ended]) -> None:
        super().__init__()
        self._ended = ended

    def _execute(self, script: str, *arguments: str, content: bytes = b"", deadline: float = 0) -> Ended:
        del script, arguments, content, deadline
        return self._ended()


outputs = st.one_of(
    st.binary(max_size=40),
    texts.map(lambda text: text.encode(errors="surrogatepass")),
    st.lists(texts, max_size=9).map(lambda lines: "\n".join(lines).encode(errors="surrogatepass")),
    st.sampled_from(
        [b"81a4 postgres 26", b"41ed UNKNOWN 1", b"17\nhere\n17\n/d\n1\n5432\n/s\n*\n", b"0\nlost\n", b"9" * 5000]
    ),
)
statuses = st.sampled_from([0, 1, *sorted(file_scripts.ANSWERS)]) | st.integers(-64, 255)


@given(st.lists(st.builds(Ended, statuses, outputs, texts), min_size=1, max_size=6))
def test_raw_answers_of_a_shell(answers: list[Ended]) -> None:
    left = itertools.cycle(answers)
    host, path = Answering(lambda: next(left)), PurePosixPath("/tmp/db2")
    for ask in (host.status, host.listing, host.read, host.real, host.postmaster, host.serves, host.remove):
        with pytest.MonkeyPatch.context() as patch, refused_in_a_sentence():
            patch.setattr(files, "PAUSES", (0.0,))
            ask(path)
    with Facts().read(), refused_in_a_sentence():
        host.look(statuses=[path], contents=[path], listings=[path], servers=[path], outputs=[["ls"]])
    with refused_in_a_sentence():
        host.output(["ls"])
    with refused_in_a_sentence():
        host.write(path, b"", mode=0o600)
    with refused_in_a_sentence():
        host.rename(path, path)


@given(
    st.lists(st.dictionaries(texts | st.sampled_from(VAULT_KEYS), json_values, max_size=4), min_size=1, max_size=4),
    statuses,
)
def test_answers_of_a_vault(answers: list[dict[str, Any]], status: int) -> None:
    left = itertools.cycle([*answers, *({"data": one} for one in answers)])

    def send(client: Client, method: str, where: str, *_: Any) -> tuple[int, dict[str, Any]]:
        found = [200, 404, 204, status][abs(status) % 4]
        return found, client._read(
            found, method, where, json.dumps(next(left), default=str).encode(errors="surrogatepass")
        )

    where = {"address": "https://vault.example.net"}
    names = VaultNames("x", "p/x/x", "tde-x", shared=status % 2 == 0, role="replicator", keys=("key",))
    token = Token.model_validate({**where, "server": "db1", "policies": ["a"], "period_hours": 24, "accessor": "a"})
    secret = SecretContent.model_validate({**where, "mount": "m", "name": "n", "username": "u", "password": "p"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_send", send)
        address = VaultAddress(where["address"], None, None)
        patch.setattr(VaultAddress, "client", Client(where["address"], "token"))
        asks: list[Callable[[], object]] = [token.read, token.create, secret.read, secret.create]
        asks += [lambda: check_vault(address, names)]
        asks += [lambda: newest_key(address.client, "m", "k", ["team/k"]).names("9999d", datetime.now(UTC))]
        for ask in asks:
            with refused_in_a_sentence():
                ask()
