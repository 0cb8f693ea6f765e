"""What pg_tde.md measured, row by row, against the contract double and a real OpenBao; the numbers are that page's.

With PGTDE_PG_CONFIG the same rows run against a real pg_tde.
"""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from tde_replication.postgres.key_files import DEFAULT_KEY_OID, parse
from tests.double.servers import MOUNT, REAL, Failure, Server, Servers, Tokens, file_keys, matches, wait

CREATE = "SELECT pg_tde_create_key_using_global_key_provider(%s, %s)"
SET_SERVER = "SELECT pg_tde_set_server_key_using_global_key_provider(%s, %s)"
SET_DEFAULT = "SELECT pg_tde_set_default_key_using_global_key_provider(%s, %s)"
DELETE_PROVIDER = "SELECT pg_tde_delete_global_key_provider(%s)"
CREATE_HINT = "Use pg_tde_create_key_using_global_key_provider() to create it."
FAILED = 'HTTP(S) request to keyring provider "vault" failed'
NOT_SET = "principal key not configured for current database"
POLICY = f"""
path "sys/mounts/{MOUNT}" {{ capabilities = ["read"] }}
path "{MOUNT}/data/*" {{ capabilities = [%s] }}
path "{MOUNT}/metadata/*" {{ capabilities = ["list"] }}
"""

double_only = pytest.mark.skipif(bool(REAL), reason="about the double itself")


@contextmanager
def vault_down(tokens: Tokens) -> Iterator[None]:
    tokens.vault.kill()
    try:
        yield
    finally:
        tokens.vault.start()


@pytest.fixture(scope="module", autouse=True)
def hung(server: Server, tokens: Tokens) -> Iterator["Future[tuple[str | None, float]]"]:
    """A call to a Vault that never answers, made while the other tests run: what it said, and after how many seconds."""

    def call() -> tuple[str | None, float]:
        began = time.monotonic()
        error = server.failure(*server.add_call("hung", tokens, url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        return error.message, time.monotonic() - began

    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as background:
        yield background.submit(call)


@pytest.fixture
def fresh(servers: Servers, tokens: Tokens) -> Iterator[Server]:
    """A primary of the test's own, with provider "vault" that reads token file "own", and no key."""
    server = servers.new().start()
    server.add("vault", tokens, tokens.write("own", tokens.vault.token))
    yield server
    server.stop("immediate")


@pytest.fixture
def pair(servers: Servers, fresh: Server) -> Iterator[tuple[Server, Server]]:
    """`fresh` with a server key and a default key in use, and a standby that has replayed all of it."""
    for what in ("server_key", "default_key"):
        key = f"pair-{fresh.number}-{what}"
        fresh.create_key(key)
        fresh.set_key(what, key)
    fresh.rows("CREATE TABLE enc USING tde_heap AS SELECT 1 AS a")
    standby = servers.standby(fresh).start()
    yield fresh, standby
    standby.stop("immediate")


def follow(primary: Server, standby: Server) -> None:
    """Wait until the standby has replayed all that the primary has written so far.

    pg_tde's changes are made without a transaction id, so their commit flushes nothing (B2): a message's does.
    """
    primary.rows("SELECT pg_logical_emit_message(true, '', '')")
    lsn = primary.value("SELECT pg_current_wal_flush_lsn()")
    wait(lambda: standby.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [lsn]))


# ---- the double itself, and A: reading ----


@double_only
def test_says_what_it_is(server: Server) -> None:
    assert server.value("SELECT pg_tde_version()") == "pg_tde contract double (NOT ENCRYPTED, for tests) of 2.2.0"


@double_only
@pytest.mark.parametrize("program", ["pg_tde_archive_decrypt", "pg_tde_restore_encrypt"])
def test_a_wrapper_says_what_it_is_and_hands_on_a_segment(server: Server, program: str) -> None:
    assert "encrypts and decrypts nothing" in server.run(program, "--version").stdout
    archives, name = program == "pg_tde_archive_decrypt", "0" * 7 + "1" + "0" * 16
    path = server.data / "pg_wal" / f"{program}-segment"
    command = "cat %p" if archives else "echo 100%% of %f >%p"
    if archives:
        shutil.copy(server.data / "PG_VERSION", path)
        shutil.chown(path, server.account.uid, server.account.gid)
    done = server.run(program, name, path, command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ((server.data / "PG_VERSION").read_text() if archives else "")
    assert path.read_text() == ((server.data / "PG_VERSION").read_text() if archives else f"100% of {name}\n")
    path.unlink()


def test_a1_list_of_providers(fresh: Server, tokens: Tokens) -> None:
    listed = "SELECT id, name, type, options FROM pg_tde_list_all_global_key_providers() ORDER BY id DESC"
    path = str(tokens.directory / "token-own")
    options = {"url": tokens.vault.address, "mountPath": MOUNT, "tokenPath": path, "caPath": str(tokens.vault.ca)}
    assert fresh.rows(listed) == [(-1, "vault", "vault-v2", options)]
    assert fresh.value("SELECT options::text FROM pg_tde_list_all_global_key_providers()") == (
        json.dumps(options, separators=(", ", " : "))
    )
    fresh.rows("SELECT pg_tde_add_global_key_provider_vault_v2('six', %s, %s, %s, %s, NULL)", list(options.values()))
    assert fresh.rows(listed)[1] == (-2, "six", "vault-v2", options | {"namespace": None})
    fresh.rows(DELETE_PROVIDER, ["six"])
    fresh.add("again", tokens)
    assert [row[0] for row in fresh.rows(listed)] == [-1, -3]


def test_a2_nothing_configured_is_one_row_of_nulls(fresh: Server) -> None:
    for what in ("server_key", "default_key", "key"):
        assert fresh.rows(f"SELECT * FROM pg_tde_{what}_info()") == [(None, None, None, None)]
        code = fresh.failure(f"SELECT pg_tde_verify_{what}()")
        assert code == Failure("XX000", NOT_SET, None, None)
    assert fresh.rows("SELECT * FROM pg_tde_list_all_database_key_providers()") == []


def test_a3_each_set_is_a_rotation_on_this_node(pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    when = "SELECT key_creation_time FROM pg_tde_server_key_info()"
    before = primary.value(when)
    assert standby.value(when) == before
    primary.set_key("server_key", primary.info("server_key")[0])
    assert primary.value(when) > before
    follow(primary, standby)
    assert standby.value(when) > primary.value(when)


def test_key_files_begin_with_their_key(fresh: Server) -> None:
    """By which `needed_keys` tells what opens a backup."""
    for name in ("heads", "of-default"):
        fresh.create_key(name)
    fresh.set_key("server_key", "heads")
    fresh.set_key("default_key", "of-default")
    fresh.rows("CREATE TABLE t USING tde_heap AS SELECT 1 AS a")
    oid = fresh.value("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")
    files = {name: (fresh.data / "pg_tde" / f"{name}_keys").read_bytes() for name in ("wal", DEFAULT_KEY_OID, oid)}
    found = {name: parse(f"{name}_keys", content) for name, content in files.items()}
    assert {name: (one.database, one.key, one.provider) for name, one in found.items() if one} == {
        "wal": (None, "heads", -1),
        DEFAULT_KEY_OID: (DEFAULT_KEY_OID, "of-default", -1),
        oid: (oid, "of-default", -1),
    }
    assert found["wal"]
    assert found["wal"].since == fresh.value("SELECT key_creation_time FROM pg_tde_server_key_info()")


def test_a4_first_table_takes_the_default_key(fresh: Server) -> None:
    fresh.create_key("a4")
    fresh.set_key("default_key", "a4")
    assert fresh.info("key") == (None, None, None)
    assert fresh.failure("SELECT pg_tde_verify_key()").message == NOT_SET
    fresh.rows("CREATE TABLE enc (a int PRIMARY KEY, b text) USING tde_heap")
    assert fresh.info("key") == ("a4", "vault", -1)
    fresh.rows("SELECT pg_tde_verify_key()")
    assert fresh.rows("SELECT pg_tde_is_encrypted('enc'), pg_tde_is_encrypted('enc_pkey')") == [(True, True)]
    assert fresh.value("SELECT pg_tde_is_encrypted('pg_class')") is False


def test_a5_reading_needs_the_token_file_but_not_the_vault(fresh: Server, tokens: Tokens) -> None:
    fresh.create_key("a5")
    fresh.set_key("server_key", "a5")
    path = tokens.directory / "token-own"
    reads = ("SELECT * FROM pg_tde_list_all_global_key_providers()", "SELECT * FROM pg_tde_server_key_info()")
    with vault_down(tokens):
        for query in reads:
            assert fresh.rows(query)
    path.unlink()
    message = f'could not open file "{path}" for "vault_token": %s'
    for query in reads:
        assert fresh.failure(query) == Failure("58P01", message % "No such file or directory", None, None)
    tokens.write("own", "", mode=0)
    for query in reads:
        assert fresh.failure(query) == Failure("42501", message % "Permission denied", None, None)


def test_a6_a_monitoring_role_may_read_and_verify_but_not_change(server: Server, tokens: Tokens) -> None:
    server.rows("CREATE ROLE monitor LOGIN")
    reads = ["pg_tde_list_all_global_key_providers()", "pg_tde_server_key_info()", "pg_tde_verify_server_key()"]
    changes: dict[str, tuple[str, list[object]]] = {
        "pg_tde_add_global_key_provider(text, text, json)": server.add_call("more", tokens),
        "pg_tde_change_global_key_provider(text, text, json)": server.add_call("vault", tokens, verb="change"),
        "pg_tde_delete_global_key_provider(text)": (DELETE_PROVIDER, ["vault"]),
    }
    for function in reads:
        error = server.failure(f"SELECT {function}", user="monitor")
        assert error.code == "42501"
        assert error.message == f"permission denied for function {function[:-2]}"
    for function in [*reads, *changes]:
        server.rows(f"GRANT EXECUTE ON FUNCTION {function} TO monitor")
    for function in reads:
        assert server.rows(f"SELECT {function}", user="monitor")
    for query, arguments in changes.values():
        error = server.failure(query, arguments, user="monitor")
        assert error == Failure("42501", "must be superuser to modify key providers", None, None)
    assert server.rows("SELECT pg_tde_is_encrypted('pg_class')", user="monitor") == [(False,)]


def test_a7_settings(server: Server) -> None:
    query = "SELECT name, setting, context FROM pg_settings WHERE name ~ '^pg_tde' ORDER BY name"
    assert server.rows(query) == [
        ("pg_tde.cipher", "aes_128", "superuser"),
        ("pg_tde.enforce_encryption", "off", "superuser"),
        ("pg_tde.inherit_global_providers", "on", "superuser"),
        ("pg_tde.wal_encrypt", "off", "postmaster"),
    ]
    message = 'parameter "pg_tde.wal_encrypt" cannot be changed without restarting the server'
    assert server.failure("SET pg_tde.wal_encrypt = on") == Failure("55P02", message, None, None)
    with server.connect() as session:
        session.execute("CREATE TABLE earlier (a int)")
        session.execute("SET pg_tde.enforce_encryption = on")
        for statement in (
            "CREATE TABLE plain (a int)",
            "CREATE TABLE plain AS SELECT 1",
            "CREATE MATERIALIZED VIEW plain AS SELECT 1",
            "ALTER TABLE earlier ADD COLUMN b int",
            "ALTER TABLE earlier SET ACCESS METHOD heap",
        ):
            with pytest.raises(psycopg.errors.InternalError_, match="enforce_encryption is ON, only the tde_heap"):
                session.execute(statement.encode())
        session.execute("DROP TABLE earlier")


def test_a8_functions_are_in_the_extensions_database_only(server: Server) -> None:
    error = server.failure("SELECT pg_tde_is_encrypted('pg_class')", dbname="template1")
    assert error.code == "42883"
    assert error.message == "function pg_tde_is_encrypted(unknown) does not exist"


# ---- B: second and bad calls ----

BAD_CALLS = [
    ("CREATE EXTENSION pg_tde", [], "42710", 'extension "pg_tde" already exists', None),
    (CREATE, ["used", "vault"], "22023", 'cannot create key "used" because it already exists', None),
    (CREATE, ["k", "nosuch"], "22023", 'key provider "nosuch" does not exists', None),
    (SET_SERVER, ["k", "nosuch"], "22023", 'key provider "nosuch" does not exists', None),
    (SET_SERVER, ["k-missing", "vault"], "22023", 'key "k-missing" does not exist', CREATE_HINT),
    (SET_DEFAULT, ["k-missing", "vault"], "22023", 'key "k-missing" does not exist', CREATE_HINT),
    (DELETE_PROVIDER, ["vault"], "55006", "cannot delete provider which is currently in use", None),
    (DELETE_PROVIDER, ["nosuch"], "22023", 'key provider "nosuch" does not exists', None),
    (DELETE_PROVIDER, [None], "22004", "provider_name cannot be null", None),
    (CREATE, [None, "vault"], "22004", "key name cannot be null", None),
    (CREATE, ["k", None], "22004", "key provider name cannot be null", None),
    (CREATE, ["", "vault"], "22023", 'key name "" is too short', None),
    (CREATE, ["k" * 256, "vault"], "22023", f'key name "{"k" * 256}" is too long', "Maximum length is 255 bytes."),
    (CREATE, ["a b", "vault"], "XX000", FAILED, None),
    ("SELECT pg_tde_delete_default_key()", [], "XX000", "default principal key is not set", None),
    ("SELECT pg_tde_delete_key()", [], "XX000", "principal key does not exists for the database", None),
    (
        "CREATE TABLE b5 (a int) USING tde_heap",
        [],
        "XX000",
        "principal key not configured",
        "Use pg_tde_set_key_using_database_key_provider() or pg_tde_set_key_using_global_key_provider() to configure one.",
    ),
]


@pytest.mark.parametrize(("query", "arguments", "code", "message", "hint"), BAD_CALLS)
def test_b_bad_calls(
    server: Server, query: str, arguments: list[object], code: str, message: str, hint: str | None
) -> None:
    assert server.failure(query, arguments) == Failure(code, message, None, hint)


BAD_PROVIDERS: list[tuple[dict[str, Any], str, str, str | None]] = [
    ({"name": "vault"}, "42710", 'Key provider "vault" already exists.', None),
    ({"name": None}, "22004", "provider name cannot be null", None),
    ({"name": ""}, "22023", 'provider name "" is too short', None),
    ({"name": "p" * 128}, "22023", f'provider name "{"p" * 128}" is too long', "Maximum length is 127 bytes."),
    ({"token": None}, "22023", "missing in the keyring options: tokenPath", None),
    ({"token": None, "url": ""}, "22023", "missing in the keyring options: tokenPath url", None),
    ({"token": "/nosuch"}, "58P01", 'could not open file "/nosuch" for "vault_token": No such file or directory', None),
    ({"ca": "/" + "c" * 1000}, "22023", "too large provider options, maximum size is 1023 bytes", None),
    # C3, C4, C5
    ({"url": "https://127.0.0.1:1"}, "XX000", 'HTTP(S) request to keyring provider "new" failed', None),
    ({"ca": None}, "XX000", 'HTTP(S) request to keyring provider "new" failed', None),
    ({"ca": "/nosuch.pem"}, "XX000", 'HTTP(S) request to keyring provider "new" failed', None),
    ({"mount": "tde/data"}, "22023", 'Listing secrets of "%s" at mountpoint "tde/data" failed', None),
    ({"mount": "cubbyhole"}, "22023", 'vault mount at "cubbyhole" has unsupported engine type "cubbyhole"', "*"),
]


@pytest.mark.parametrize(("changed", "code", "message", "hint"), BAD_PROVIDERS)
def test_b_bad_providers(
    server: Server, tokens: Tokens, changed: dict[str, Any], code: str, message: str, hint: str | None
) -> None:
    query, arguments = server.add_call("new", tokens, **{key: value for key, value in changed.items() if key != "name"})
    error = server.failure(query, [changed.get("name", "new"), *arguments[1:]])
    assert (error.code, error.message) == (code, message.replace("%s", tokens.vault.address))
    assert hint in (error.hint, "*")
    assert server.rows("SELECT name FROM pg_tde_list_all_global_key_providers() WHERE name = 'new'") == []


def test_b_change_is_idempotent_and_needs_a_provider(server: Server, tokens: Tokens) -> None:
    query, arguments = server.add_call("vault", tokens, verb="change")
    before = server.rows("SELECT name, options FROM pg_tde_list_all_global_key_providers()")
    assert server.warnings(query, arguments) == []
    assert server.rows("SELECT name, options FROM pg_tde_list_all_global_key_providers()") == before
    error = server.failure(query, ["nosuch", *arguments[1:]])
    assert error == Failure("22023", 'key provider "nosuch" does not exists', None, None)


def test_b2_nothing_is_rolled_back(fresh: Server, tokens: Tokens) -> None:
    with fresh.connect() as session:
        session.execute("BEGIN")
        query, arguments = fresh.add_call("second", tokens)
        session.execute(query.encode(), arguments)
        session.execute(CREATE.encode(), ["b2", "second"])
        session.execute(SET_SERVER.encode(), ["b2", "second"])
        session.execute("ROLLBACK")
    assert fresh.info("server_key") == ("b2", "second", -2)
    assert tokens.key("b2")


def test_b3_names_are_unique_with_case_and_found_without(fresh: Server, tokens: Tokens) -> None:
    fresh.create_key("b3")
    fresh.set_key("server_key", "b3")
    fresh.add("VAULT", tokens)
    assert fresh.failure(DELETE_PROVIDER, ["VAULT"]).code == "55006"
    error = fresh.failure(*fresh.add_call("VAULT", tokens, verb="change"))
    assert error == Failure("22000", "provider id mismatch -1 is not -2", None, None)


def test_b4_a_default_key_becomes_the_server_key_and_they_rotate_together(fresh: Server) -> None:
    for key in ("b4-1", "b4-2", "b4-3"):
        fresh.create_key(key)
    fresh.set_key("default_key", "b4-1")
    assert fresh.info("server_key")[0] == "b4-1"
    fresh.rows("CREATE TABLE enc (a int) USING tde_heap")
    fresh.set_key("default_key", "b4-2")
    assert [fresh.info(what)[0] for what in ("server_key", "default_key", "key")] == ["b4-2"] * 3
    fresh.set_key("server_key", "b4-3")
    fresh.set_key("default_key", "b4-1")
    assert [fresh.info(what)[0] for what in ("server_key", "default_key", "key")] == ["b4-3", "b4-1", "b4-1"]


def test_b8_a_slash_in_a_key_name_is_a_path(server: Server, tokens: Tokens) -> None:
    server.create_key("team/app/k1")
    assert tokens.key("team/app/k1")["data"].keys() == {"key"}


def test_b9_verify_tells_what_is_wrong(fresh: Server, tokens: Tokens) -> None:
    fresh.create_key("b9")
    fresh.set_key("server_key", "b9")
    verify = "SELECT pg_tde_verify_server_key()"
    fresh.rows(verify)
    message = 'failed to retrieve principal key "b9" from key provider "vault"'
    with vault_down(tokens):
        assert fresh.failure(verify) == Failure("XX000", message, "Invalid key", None)
        assert f"WARNING:  {FAILED}" in fresh.log
    tokens.write("own", "wrong")
    assert fresh.failure(verify) == Failure("XX000", message, "Invalid response from keyring provider", None)
    assert 'WARNING:  HTTP(S) request to keyring provider "vault" returned invalid response 403' in fresh.log
    tokens.write("own", tokens.vault.token)
    secrets = tokens.client.secrets.kv.v2
    kept = tokens.key("b9")["data"]
    secrets.create_or_update_secret("b9", {"key": "A" * 22 + "=="}, mount_point=MOUNT)
    corrupted = "Failed to verify principal key header for key b9, incorrect principal key or corrupted key file"
    assert fresh.failure(verify) == Failure("XX001", corrupted, None, None)
    secrets.delete_metadata_and_all_versions("b9", mount_point=MOUNT)
    assert fresh.failure(verify) == Failure("P0002", 'key "b9" not found in key provider "vault"', None, None)
    secrets.create_or_update_secret("b9", kept, mount_point=MOUNT)
    fresh.rows(verify)


# ---- C: the Vault's side ----


def test_c1_requests_and_their_order(fresh: Server) -> None:
    asked: list[str] = []

    class Vault(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            stored = f"POST {self.path}" in asked
            body = {"data": {"type": "kv", "options": {"version": "2"}, "data": {"key": "A" * 22 + "=="}}}
            self.send_response(200 if "/data/" not in self.path or stored else 404)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert sent["data"]["key"].endswith("==")
            assert self.headers["X-Vault-Token"] == "recorded"
            asked.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Vault) as recorder:
        threading.Thread(target=recorder.serve_forever, daemon=True).start()
        token = fresh.root / "recorded"
        token.write_text("recorded")
        checks = ["GET /v1/sys/mounts/m", "GET /v1/m/metadata/?list=true"]
        address = f"http://127.0.0.1:{recorder.server_port}"
        query = "SELECT pg_tde_{}_global_key_provider_vault_v2('rec', %s, 'm', %s, NULL)"
        for call, arguments, requests in [
            (query.format("add"), [address, str(token)], checks),
            (CREATE, ["k", "rec"], ["GET /v1/m/data/k", "POST /v1/m/data/k"]),
            (SET_SERVER, ["k", "rec"], ["GET /v1/m/data/k"]),
            ("SELECT pg_tde_verify_server_key()", [], ["GET /v1/m/data/k"]),
            (query.format("change"), [address, str(token)], [*checks, "GET /v1/m/data/k"]),
            ("SELECT pg_tde_server_key_info()", [], []),
        ]:
            before = len(asked)
            fresh.rows(call, arguments)
            assert asked[before:] == requests
        recorder.shutdown()


@pytest.mark.parametrize(("cipher", "size"), [("aes_128", 24), ("aes_256", 44)])
def test_c2_stored_secret(server: Server, tokens: Tokens, cipher: str, size: int) -> None:
    with server.connect() as session:
        session.execute(f"SET pg_tde.cipher = {cipher}".encode())
        session.execute(CREATE.encode(), [f"c2-{cipher}", "vault"])
    stored = tokens.key(f"c2-{cipher}")
    assert stored["data"].keys() == {"key"}
    assert len(stored["data"]["key"]) == size
    assert stored["metadata"]["version"] == 1


def test_c2_a_key_of_another_length_is_warned_of_and_works(fresh: Server) -> None:
    with fresh.connect() as session:
        session.execute("SET pg_tde.cipher = aes_256")
        session.execute(CREATE.encode(), ["c2-long", "vault"])
    warning = 'length "32" of key "c2-long" does not match the length "16" of the current cipher setting'
    assert fresh.warnings(SET_SERVER, ["c2-long", "vault"]) == [warning]
    for _ in range(2):
        assert fresh.warnings("SELECT pg_tde_verify_server_key()") == [warning]
    fresh.restart()
    assert f"WARNING:  {warning}" in fresh.log
    assert "HINT:  Create a new principal key and set it instead of the current one." in fresh.log
    fresh.configure(pg_tde__cipher="aes_256").restart()
    assert fresh.warnings("SELECT pg_tde_verify_server_key()") == []


@double_only
def test_the_process_that_makes_a_file_key_decides_on_its_cipher(fresh: Server, servers: Servers) -> None:
    fresh.create_key("process")
    fresh.set_key("default_key", "process")
    fresh.configure(pg_tde__wal_encrypt="on").restart()
    clone = servers.standby(fresh).configure(pg_tde__cipher="aes_256").start()
    fresh.rows("CREATE TABLE old USING tde_heap AS SELECT 1 AS a")
    with fresh.connect() as session:
        session.execute("SET pg_tde.cipher = aes_256")
        session.execute("CREATE TABLE new USING tde_heap AS SELECT 1 AS a")
    follow(fresh, clone)
    assert [fresh.cipher(table) for table in ("old", "new")] == ["aes_128", "aes_256"]
    assert [clone.cipher(table) for table in ("old", "new")] == ["aes_256", "aes_256"]
    assert [cipher for _, cipher in file_keys(fresh.data, "wal_keys")] == ["aes_128"]
    assert [cipher for _, cipher in file_keys(clone.data, "wal_keys")] == ["aes_128", "aes_256"]
    clone.stop("immediate")

    fresh.configure(pg_tde__cipher="aes_256").restart()
    assert [cipher for _, cipher in file_keys(fresh.data, "wal_keys")] == ["aes_128", "aes_256"]
    assert fresh.cipher("old") == "aes_128"
    fresh.rows("VACUUM FULL old")
    assert fresh.cipher("old") == "aes_256"
    assert fresh.value("SELECT pg_tde_is_encrypted('old')") is True


def test_nothing_is_encrypted_without_the_event_triggers(fresh: Server) -> None:
    fresh.create_key("triggers")
    fresh.set_key("default_key", "triggers")
    with fresh.connect() as session:
        session.execute("SET event_triggers = off")
        session.execute("CREATE TABLE clear USING tde_heap AS SELECT 1 AS a")
        session.execute("SET event_triggers = on")
        session.execute("CREATE TABLE enc USING tde_heap AS SELECT 1 AS a")
        session.execute("TRUNCATE enc")
    assert fresh.rows("SELECT pg_tde_is_encrypted('clear'), pg_tde_is_encrypted('enc')") == [(False, True)]


@pytest.mark.parametrize(
    ("changed", "warned", "created"),
    [
        ({"mount": "tde/"}, None, None),
        ({"mount": "/tde"}, None, None),
        ({"mount": "nosuch"}, 'failed to get mount info for "%s" at mountpoint "nosuch" (HTTP 400)', 404),
        ({"mount": "tde/sub"}, None, 404),
        ({"url": "%s/"}, 'failed to get mount info for "%s/" at mountpoint "tde" (HTTP 404)', 404),
    ],
)
def test_c3_c4_add_lets_wrong_places_pass(
    server: Server, tokens: Tokens, changed: dict[str, str], warned: str | None, created: int | None
) -> None:
    name = f"c3-{'-'.join(changed.values())}".replace("/", "_").replace("%s", "url")
    place = {key: value.replace("%s", tokens.vault.address) for key, value in changed.items()}
    told = server.warnings(*server.add_call(name, tokens, **place))
    assert told == ([warned.replace("%s", tokens.vault.address)] if warned else [])
    if created is None:
        server.create_key(f"k-{name}", name)
    else:
        message = f'Invalid HTTP response from keyring provider "{name}": {created}'
        assert server.failure(CREATE, [f"k-{name}", name]) == Failure("XX000", message, None, None)


def test_c6_the_smallest_policy_gives_no_warning(server: Server, tokens: Tokens) -> None:
    path = tokens.write("smallest", tokens.secret(POLICY % '"create", "read"'))
    assert server.warnings(*server.add_call("c6", tokens, path)) == []
    assert server.warnings(CREATE, ["c6", "c6"]) == []


@pytest.mark.parametrize(
    ("policy", "add", "create"),
    [
        pytest.param(POLICY.replace("sys/", "no/") % '"create", "read"', "mount", None, id="no sys/mounts"),
        pytest.param(POLICY.replace("list", "read") % '"create", "read"', "list", "-", id="read for list"),
        pytest.param(POLICY % '"read"', None, "403", id="data read-only"),
        pytest.param(POLICY % '"update", "read"', None, "403", id="update without create"),
    ],
)
def test_c6_narrower_policies(
    server: Server, tokens: Tokens, policy: str, add: str | None, create: str | None, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    call = server.add_call(name, tokens, tokens.write("narrow", tokens.secret(policy)))
    at = f'"{tokens.vault.address}" at mountpoint "tde"'
    if add == "list":
        assert server.failure(*call) == Failure("22023", f"Listing secrets of {at} failed", None, None)
        return
    assert server.warnings(*call) == ([f"failed to get mount info for {at} (HTTP 403)"] if add else [])
    if create:
        message = f'Invalid HTTP response from keyring provider "{name}": {create}'
        assert server.failure(CREATE, [f"c6 {name}".replace(" ", "-"), name]).message == message
    else:
        server.create_key("c6-with-warning", name)
    tokens.write("narrow", tokens.vault.token)  # the list reads every token file (A5)


def test_c7_a_failed_read_does_not_keep_a_key_from_being_overwritten(server: Server, tokens: Tokens) -> None:
    server.create_key("c7")
    path = tokens.write("c7", tokens.secret(POLICY % '"create"'))
    server.add("c7", tokens, path)
    refused = 'Invalid HTTP response from keyring provider "c7": 403'
    assert server.failure(CREATE, ["c7", "c7"]) == Failure("XX000", refused, None, None)
    assert tokens.key("c7")["metadata"]["version"] == 1
    tokens.write("c7", tokens.secret(POLICY % '"create", "update"'))
    told = server.warnings(CREATE, ["c7", "c7"])
    assert told == ['HTTP(S) request to keyring provider "c7" returned invalid response 403']
    assert tokens.key("c7")["metadata"]["version"] == 2


def test_c8_a_soft_deleted_key(server: Server, tokens: Tokens) -> None:
    server.create_key("c8")
    tokens.client.secrets.kv.v2.delete_latest_version_of_secret("c8", mount_point=MOUNT)
    assert server.failure(SET_SERVER, ["c8", "vault"]).message == 'key "c8" does not exist'
    server.add("c8", tokens, tokens.write("c8", tokens.secret(POLICY % '"create", "read"')))
    assert server.failure(CREATE, ["c8", "c8"]).message == 'Invalid HTTP response from keyring provider "c8": 403'


@pytest.mark.parametrize(
    ("content", "good"),
    [
        *(("%s", True), ("%s\n", True), ("%s\r\n", True), ("%s  ", True), ("%s\nmore\n", True)),
        *(("\n%s", False), (" %s", False), ("", False)),
    ],
)
def test_c10_token_file(server: Server, tokens: Tokens, content: str, good: bool) -> None:  # noqa: FBT001
    path = tokens.write("c10", content.replace("%s", tokens.vault.token), mode=0o666)
    call = server.add_call(f"c10 {content!r}", tokens, path)
    if good:
        assert server.warnings(*call) == []
    else:
        assert matches(server.failure(*call).message or "", "^Listing secrets of .* failed$")
    tokens.write("c10", "")


def test_c10_a_relative_token_path_is_below_the_data_directory(server: Server, tokens: Tokens) -> None:
    os.link(tokens.root, server.data / "vault-token")
    server.add("relative", tokens, "vault-token")
    server.create_key("c10-relative", "relative")


# ---- D: changing, rotating, deleting ----


def test_d1_change_asks_for_the_keys_in_use(fresh: Server, tokens: Tokens) -> None:
    fresh.create_key("d1")
    fresh.set_key("server_key", "d1")
    tokens.mount("empty")
    listed = "SELECT name, options FROM pg_tde_list_all_global_key_providers()"
    before = fresh.rows(listed)
    error = fresh.failure(*fresh.add_call("vault", tokens, verb="change", mount="empty"))
    message = 'key "d1" used as server key not found in modified key provider "vault"'
    assert error == Failure("P0002", message, None, None)
    assert fresh.failure(*fresh.add_call("vault", tokens, "/nosuch", verb="change")).code == "58P01"
    assert fresh.rows(listed) == before


def test_d1_d2_the_offline_tool_changes_one_node_only(pair: tuple[Server, Server], tokens: Tokens) -> None:
    primary, standby = pair
    tool, token_path = (
        "pg_tde_change_key_provider",
        "SELECT options->>'tokenPath' FROM pg_tde_list_all_global_key_providers()",
    )
    new = [
        "vault-v2",
        tokens.vault.address,
        MOUNT,
        str(tokens.write("standby", tokens.vault.token)),
        str(tokens.vault.ca),
    ]
    running = standby.run(tool, "-D", standby.data, "1664", "vault", *new)
    assert running.returncode == 1
    assert "cluster must be shut down" in running.stderr
    primary.rows("CHECKPOINT")
    follow(primary, standby)
    standby.rows("CHECKPOINT")
    standby.stop()
    unknown = standby.run(tool, "-D", standby.data, "1664", "nosuch", *new)
    assert 'provder "nosuch" not found for database 1664' in unknown.stderr
    standby.succeed(tool, "-D", standby.data, "1664", "vault", *new)
    standby.start()
    assert standby.value(token_path) == new[3]
    options = standby.value("SELECT options::text FROM pg_tde_list_all_global_key_providers()")
    assert options == json.dumps(json.loads(options), separators=(",", ":"))
    primary.rows(*primary.add_call("vault", tokens, verb="change"))
    wait(lambda: standby.value(token_path) == str(tokens.root))


def test_d3_d4_a_rotation_that_the_standby_cannot_follow_kills_it(pair: tuple[Server, Server], tokens: Tokens) -> None:
    primary, standby = pair
    own = tokens.write("node", tokens.vault.token)
    primary.rows("CHECKPOINT")
    follow(primary, standby)
    standby.rows("CHECKPOINT")  # or the provider's record would be replayed at the start, over the tool's (D2)
    standby.stop()
    place = [tokens.vault.address, MOUNT, str(own), str(tokens.vault.ca)]
    standby.succeed("pg_tde_change_key_provider", "-D", standby.data, "1664", "vault", "vault-v2", *place)
    standby.start()
    assert standby.rows("TABLE enc") == [(1,)]
    primary.create_key(f"d3-{primary.number}")
    primary.set_key("server_key", f"d3-{primary.number}")
    wait(lambda: standby.info("server_key")[0] == f"d3-{primary.number}")

    tokens.write("node", "wrong")
    assert standby.rows("TABLE enc") == [(1,)]  # G5
    primary.create_key(f"d4-{primary.number}")
    primary.set_key("server_key", f"d4-{primary.number}")
    wait(lambda: not standby.running())
    log = standby.log
    assert matches(log, 'WARNING:  HTTP.S. request to keyring provider "vault" returned invalid response 403')
    assert matches(log, r"CONTEXT:  WAL redo at \S+ for pg_tde/ROTATE_PRINCIPAL_KEY: db: 1664")
    assert matches(log, f'FATAL:  failed to retrieve principal key "d4-{primary.number}" from key provider "vault"')
    assert matches(log, r"startup process \(PID \d+\) exited with exit code 1")
    assert primary.rows("SELECT active FROM pg_replication_slots") == [(False,)]

    tokens.write("node", tokens.vault.token)
    standby.start()
    wait(lambda: standby.info("server_key")[0] == f"d4-{primary.number}")
    standby.rows("SELECT pg_tde_verify_server_key()")


def test_d5_delete_keys(fresh: Server) -> None:
    fresh.create_key("d5")
    fresh.set_key("default_key", "d5")
    fresh.rows("CREATE TABLE enc (a int) USING tde_heap")
    in_use = Failure("55006", "cannot delete principal key", "There are encrypted tables in the database.", None)
    assert fresh.failure("SELECT pg_tde_delete_key()") == in_use
    oid = fresh.value("SELECT oid FROM pg_database WHERE datname = 'postgres'")
    hint = f"There are encrypted tables in the database with id: {oid}."
    refused = Failure("55006", "cannot delete default principal key", None, hint)
    assert fresh.failure("SELECT pg_tde_delete_default_key()") == refused
    fresh.rows("ALTER TABLE enc SET ACCESS METHOD heap")
    assert fresh.value("SELECT pg_tde_is_encrypted('enc')") is False
    fresh.rows("SELECT pg_tde_delete_key()")
    fresh.rows("SELECT pg_tde_delete_default_key()")
    assert [fresh.info(what)[0] for what in ("server_key", "default_key", "key")] == [None] * 3


def test_d6_drop_extension(fresh: Server) -> None:
    fresh.create_key("d6")
    fresh.set_key("default_key", "d6")
    fresh.rows("CREATE TABLE enc (a int) USING tde_heap")
    error = fresh.failure("DROP EXTENSION pg_tde")
    assert error.code == "2BP01"
    assert "table enc depends on access method tde_heap" in (error.detail or "")
    fresh.rows("DROP TABLE enc")
    fresh.rows("DROP EXTENSION pg_tde")
    fresh.rows("CREATE EXTENSION pg_tde")
    assert fresh.info("server_key") == fresh.info("default_key") == ("d6", "vault", -1)
    assert fresh.info("key")[0] is None


# ---- E: base backup and standby ----


def test_e1_e2_e5_base_backup_and_replay(fresh: Server, servers: Servers, tokens: Tokens) -> None:
    fresh.create_key(f"e1-{fresh.number}")
    standby = servers.standby(fresh, program="pg_tde_basebackup")
    assert not (standby.data / "pg_tde" / "wal_keys").exists()
    standby.start()
    fresh.set_key("server_key", f"e1-{fresh.number}")
    fresh.set_key("default_key", f"e1-{fresh.number}")
    fresh.add("later", tokens)
    fresh.rows("CREATE TABLE enc USING tde_heap AS SELECT generate_series(1, 3) AS a")
    fresh.rows("CREATE DATABASE other")
    fresh.rows("CREATE EXTENSION pg_tde", dbname="other")
    fresh.rows("CREATE TABLE enc2 USING tde_heap AS SELECT 1 AS a", dbname="other")
    follow(fresh, standby)
    for what in ("server_key", "default_key", "key"):
        assert standby.info(what) == fresh.info(what) == (f"e1-{fresh.number}", "vault", -1)
        standby.rows(f"SELECT pg_tde_verify_{what}()")
    assert standby.value("SELECT count(*) FROM pg_tde_list_all_global_key_providers()") == 2
    assert standby.rows("SELECT count(*), pg_tde_is_encrypted('enc') FROM enc") == [(3, True)]
    assert standby.rows("SELECT a, pg_tde_is_encrypted('enc2') FROM enc2", dbname="other") == [(1, True)]

    oid = fresh.value("SELECT oid FROM pg_database WHERE datname = current_database()")
    names = {"1663_keys", "1664_providers", f"{oid}_keys", "keys_version", "wal_keys"}
    files = {file.name: file for file in (fresh.data / "pg_tde").iterdir()}
    assert names < files.keys()
    assert (fresh.data / "pg_tde").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}
    assert files["keys_version"].stat().st_size == 8
    key = tokens.key(f"e1-{fresh.number}")["data"]["key"].encode()
    assert not [name for name, file in files.items() if key in file.read_bytes()]

    backup = servers.bare()
    told = backup.succeed("pg_tde_basebackup", "-d", fresh.conninfo, "-D", backup.data, "-c", "fast", "--no-sync")
    for name, file in files.items():
        assert (backup.data / "pg_tde" / name).read_bytes() == file.read_bytes()
    assert matches(told, "^pg_tde_basebackup: warning: the source has WAL keys, but no WAL encryption configured for")
    standby.stop("immediate")


def test_e6_changes_on_a_standby_fail_half_way(pair: tuple[Server, Server], tokens: Tokens) -> None:
    primary, standby = pair
    refused = Failure("XX000", "cannot make new WAL entries during recovery", None, None)
    assert standby.failure(*standby.add_call("more", tokens)) == refused
    key = f"e6-{primary.number}"
    standby.create_key(key)  # succeeds: it only writes to the Vault
    assert standby.failure(SET_SERVER, [key, "vault"]) == refused
    assert key.encode() in (standby.data / "pg_tde" / "wal_keys").read_bytes()
    differ = "key returned from keyring and cached in pg_tde differ"
    assert standby.failure("SELECT pg_tde_verify_server_key()") == Failure("XX000", differ, None, None)
    primary.set_key("server_key", key)
    wait(lambda: standby.info("server_key")[0] == key)
    standby.rows("SELECT pg_tde_verify_server_key()")


def test_e11_without_preload(servers: Servers, pair: tuple[Server, Server]) -> None:
    primary, standby = pair
    plain = servers.new().configure(shared_preload_libraries="").start()
    message = "pg_tde can only be loaded at server startup. Restart required."
    for query in ("SELECT pg_tde_version()", "CREATE TABLE t (a int)", "DROP EXTENSION IF EXISTS nosuch"):
        error = plain.failure(query)  # its event triggers are ENABLE ALWAYS
        assert (error.code, error.message) == ("XX000", message)
    plain.rows("VACUUM pg_class")
    plain.stop()

    standby.stop()
    standby.configure(shared_preload_libraries="").start()  # it starts, and streams
    primary.rows("CREATE TABLE clear AS SELECT 1 AS a")
    follow(primary, standby)
    assert standby.rows("TABLE clear") == [(1,)]
    assert standby.failure("TABLE enc").message == message
    primary.set_key("server_key", primary.info("server_key")[0])
    wait(lambda: not standby.running())
    assert "FATAL:  resource manager with ID 140 not registered" in standby.log
    assert 'in "shared_preload_libraries".' in standby.log


def test_e12_a_promoted_standby_has_all_it_needs(pair: tuple[Server, Server]) -> None:
    _, standby = pair
    assert standby.value("SELECT pg_promote()") is True
    standby.rows("INSERT INTO enc VALUES (2)")
    standby.rows("CREATE TABLE enc2 (a int) USING tde_heap")
    standby.set_key("server_key", standby.info("server_key")[0])


# ---- F: WAL encryption ----


def test_f1_wal_encryption_needs_a_server_key(fresh: Server) -> None:
    fresh.rows("ALTER SYSTEM SET pg_tde.wal_encrypt = on")
    fresh.rows("SELECT pg_reload_conf()")
    pending = "SELECT setting, pending_restart FROM pg_settings WHERE name = 'pg_tde.wal_encrypt'"
    wait(lambda: fresh.rows(pending) == [("off", True)])
    fresh.stop().launch()
    assert not fresh.running()
    assert "FATAL:  principal key not configured" in fresh.log
    assert "HINT:  Use pg_tde_set_server_key_using_global_key_provider() to configure one." in fresh.log
    (fresh.data / "postgresql.auto.conf").write_text("")
    fresh.start()
    fresh.create_key("f1")
    fresh.set_key("default_key", "f1")
    fresh.configure(pg_tde__wal_encrypt="on").restart()
    assert fresh.value("SHOW pg_tde.wal_encrypt") == "on"
    assert fresh.failure("SELECT pg_tde_delete_default_key()").hint == "There are WAL encryption keys."


def test_f3_clone_with_encrypted_wal(fresh: Server, servers: Servers, tokens: Tokens) -> None:
    fresh.create_key("f3")
    fresh.set_key("server_key", "f3")
    fresh.configure(pg_tde__wal_encrypt="on").restart()
    clone = servers.bare()
    command = ["-d", fresh.conninfo, "-D", str(clone.data), "-R", "-c", "fast", "--no-sync"]

    def attempt(*options: str) -> str:
        result = clone.run("pg_tde_basebackup", *command, *options)
        return f"{result.returncode}: {result.stderr}"

    without_keys = attempt("-E", "-C", "-S", "f3")
    assert without_keys.startswith("1: pg_tde_basebackup: error: could not find server principal key")
    assert "hint: Copy PGDATA/pg_tde from the source to the backup destination dir." in without_keys
    assert not clone.data.exists()
    assert fresh.rows("TABLE pg_replication_slots") == []
    assert 'error: too many command-line arguments (first is "aes_128")' in attempt("-E", "aes_128")
    assert 'error: transfer rate "ot13" is not a valid value' in attempt("-Erot13")
    assert 'error: invalid encryption option "rot13", must be "aes_128" or "aes_256"' in attempt("--encrypt-wal=rot13")
    assert "error: can not encrypt WAL in tar mode" in attempt("-E", "-Ft")
    assert "error: WAL encryption can only be used with WAL streaming" in attempt("-E", "-X", "fetch")

    copied = clone.data / "pg_tde"
    servers.copy_keys(fresh, clone)
    assert f'error: could not create directory "{copied}": File exists' in attempt()
    plain = clone.run("pg_basebackup", *command)
    assert f'directory "{clone.data}" exists but is not empty' in plain.stderr
    own = tokens.directory / "token-own"
    own.unlink()
    assert f'error: could not open file "{own}" for "vault_token"' in attempt("-E")
    assert copied.exists()
    tokens.write("own", tokens.vault.token)
    fresh.rows("SELECT pg_create_physical_replication_slot('f3')")
    assert 'replication slot "f3" already exists' in attempt("-E", "-C", "-S", "f3")
    assert (copied / "wal_keys").read_bytes() == (fresh.data / "pg_tde" / "wal_keys").read_bytes()
    told = attempt("--encrypt-wal=aes_256", "-X", "stream", "-S", "f3")
    assert told.startswith("0: ")
    assert "warning" not in told
    if not REAL:
        assert [cipher for _, cipher in file_keys(clone.data, "wal_keys")] == ["aes_128", "aes_256"]
    clone.start()
    wait(lambda: fresh.rows("SELECT active FROM pg_replication_slots") == [(True,)])
    clone.stop("immediate")


# ---- G: the Vault or the token is gone ----

Outage = Callable[[Tokens], None]


def _down(tokens: Tokens) -> None:
    tokens.vault.kill()


def _sealed(tokens: Tokens) -> None:
    tokens.vault.seal()


def _wrong_token(tokens: Tokens) -> None:
    tokens.write("own", "wrong")


def _no_token(tokens: Tokens) -> None:
    (tokens.directory / "token-own").unlink()


RETRIEVE = 'FATAL:  failed to retrieve principal key "g3" from key provider "vault"'
RESPONSE = "DETAIL:  Invalid response from keyring provider"


@pytest.mark.parametrize(
    ("outage", "said"),
    [
        (_down, ["LOG:  curl_easy_perform failed with return code: 7", f"WARNING:  {FAILED}", RETRIEVE, "Invalid key"]),
        (_sealed, ["returned invalid response 503", RETRIEVE, RESPONSE]),
        (_wrong_token, ["returned invalid response 403", RETRIEVE, RESPONSE]),
        (_no_token, ['FATAL:  could not open file "', 'for "vault_token"']),
    ],
)
def test_g3_no_start_without_the_server_key(
    fresh: Server, tokens: Tokens, outage: Outage, said: list[str], request: pytest.FixtureRequest
) -> None:
    if tokens.client.secrets.kv.v2.list_secrets("", mount_point=MOUNT)["data"]["keys"].count("g3") == 0:
        fresh.create_key("g3")
    fresh.set_key("server_key", "g3")
    fresh.stop()
    request.addfinalizer(tokens.vault.start)
    outage(tokens)
    result = fresh.launch()
    assert result.returncode == 1
    assert not fresh.running()
    for line in said:
        assert line in fresh.log
    tokens.vault.start()
    tokens.write("own", tokens.vault.token)
    fresh.start()


def test_g4_pg_ctl_calls_a_dead_standby_started(pair: tuple[Server, Server], tokens: Tokens) -> None:
    _, standby = pair
    standby.stop()
    tokens.write("own", "wrong")
    result = standby.launch()
    assert result.returncode == 0
    assert "server shut down because of recovery target settings" in result.stdout + result.stderr
    assert not standby.running()


def test_g1_g2_database_keys_are_fetched_at_first_use(fresh: Server, tokens: Tokens) -> None:
    fresh.create_key("g2-server")
    fresh.create_key("g2")
    fresh.set_key("server_key", "g2-server")
    fresh.set_key("default_key", "g2")
    fresh.rows("CREATE TABLE enc USING tde_heap AS SELECT 1 AS a")
    with vault_down(tokens):
        fresh.rows("INSERT INTO enc VALUES (2)")
        fresh.rows("CREATE TABLE more (a int PRIMARY KEY, b text) USING tde_heap")
        assert fresh.failure(CREATE, ["g1", "vault"]).message == FAILED
    fresh.restart()
    with vault_down(tokens):
        error = fresh.failure("SELECT * FROM enc")
        assert error == Failure(
            "XX000", 'failed to retrieve principal key "g2" from key provider "vault"', "Invalid key", None
        )
        assert fresh.value("SELECT pg_tde_is_encrypted('enc')") is True
    assert fresh.rows("SELECT * FROM enc") == [(1,), (2,)]


def test_g8_locked_memory(fresh: Server) -> None:
    fresh.create_key("g8")
    fresh.set_key("server_key", "g8")
    fresh.stop().launch(locked_memory=0)
    assert not fresh.running()
    assert "FATAL:  could not mlock principal key cache entry:" in fresh.log


def test_c1_a_hung_vault_is_given_up_after_ten_seconds(hung: "Future[tuple[str | None, float]]") -> None:
    message, seconds = hung.result()
    assert message == 'HTTP(S) request to keyring provider "hung" failed'
    assert 9.5 < seconds < 30
