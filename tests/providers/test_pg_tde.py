"""Extension, key provider, principal key, what it is set for, and encrypted WAL: on the contract double and a real OpenBao."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydantic import SecretStr

from tde_replication import stack_file
from tde_replication.errors import Conflict, NoDatabase, Unavailable, UserError
from tde_replication.postgres import host_file, wal_encryption
from tde_replication.postgres.extension import Extension
from tde_replication.postgres.host_file import HostFile
from tde_replication.postgres.key_binding import KeyBinding
from tde_replication.postgres.key_provider import KeyProvider
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.principal_key import KeyInUse, keys_in_use
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.session import Session, server_session
from tde_replication.postgres.wal_encryption import WalEncryption
from tde_replication.preflight.keys import check_keys_in_use
from tde_replication.progress import reported_to
from tde_replication.values import Cipher
from tde_replication.vault.client import Client
from tde_replication.vault.key_age import newest_key
from tde_replication.waiting import until
from tests.double.servers import file_keys
from tests.providers.encrypted import MOUNT, KeyStore, binding, check, here, key, provider
from tests.providers.servers import Node, Servers


@pytest.fixture(scope="module")
def cluster(root: Path, programs_with_pg_tde: Path) -> Iterator[Servers]:
    made = Servers(root, programs_with_pg_tde)
    yield made
    made.end()


@pytest.fixture(scope="module")
def node(cluster: Servers, store: KeyStore) -> Node:
    made = cluster.primary("crypt", shared_preload_libraries="pg_tde")
    store.equip(made.host, made.data, "primary")
    return made


@pytest.fixture(scope="module")
def extension(node: Node) -> Extension:
    return Extension.model_validate(here(node)).create()


@pytest.fixture(scope="module")
def vault(node: Node, extension: Extension, store: KeyStore) -> KeyProvider:
    assert extension.ours
    return provider(node, store).create()


@pytest.fixture(scope="module")
def bound(node: Node, vault: KeyProvider) -> Node:
    assert vault.provider
    key(node).create()
    binding(node, "server").create()
    binding(node, "default").create()
    return node


def set_at(node: Node, scope: str) -> Any:
    return node.value(f"SELECT key_creation_time FROM pg_tde_{scope}_key_info()")


@pytest.mark.parametrize("database", ["apart", 'It\'s "a" 100% dätabase'])
def test_extension_from_nothing_to_nothing(node: Node, database: str) -> None:
    quoted = '"' + database.replace('"', '""') + '"'
    declared = Extension.model_validate({**node.inside, "database": database})
    assert declared.read() is None
    made = declared.create()
    assert made.ours
    assert made.read() == made
    again = declared.create()
    assert not again.ours  # an extension that is there is not known to be ours, and stays
    again.delete()
    assert made.read() == made
    made.delete()
    assert declared.read() is None
    made.delete()
    node.rows(f"DROP DATABASE {quoted}")  # as made: no destroy drops it
    assert declared.read() is None
    made.delete()


def test_an_extension_of_another_version_than_the_library_is_updated(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.rows("CREATE DATABASE former")
    node.rows("CREATE EXTENSION pg_tde VERSION '2.1'", database="former")
    declared = Extension.model_validate({**node.inside, "database": "former"})
    installed = partial(node.value, "SELECT extversion FROM pg_extension WHERE extname = 'pg_tde'", database="former")

    live = declared.read()
    assert live is not None
    assert live.version == "2.1, and the server's library is of 2.2"
    assert declared.changed(live) == {"version"}
    assert declared.refusal(live) is None
    with monkeypatch.context() as older:  # it was replaced on disk, and the server runs with the former one
        older.setattr(PgTde, "version", lambda _: "pg_tde 2.1.2")
        assert declared.read() == declared
        declared.update(live)
    assert installed() == "2.1"
    with monkeypatch.context() as older:
        answers = iter(["pg_tde 2.2.0", "pg_tde 2.1.2"])
        older.setattr(PgTde, "version", lambda _: next(answers))
        with pytest.raises(UserError, match=f"the server on {node.data} would get functions of 2.2 by replication"):
            declared.replace(others=[(node.inside["host"], str(node.data))]).update(live)
    assert installed() == "2.1"
    assert declared.update(live).ours
    assert (declared.read(), installed()) == (declared, "2.2")
    node.rows("DROP EXTENSION pg_tde; CREATE EXTENSION pg_tde VERSION '2.1'", database="former")
    assert not declared.create().ours  # it is taken over, in the library's version
    assert installed() == "2.2"

    node.rows(
        "SET allow_system_table_mods = on; UPDATE pg_extension SET extversion = '2.3' WHERE extname = 'pg_tde'",
        database="former",
    )
    live = declared.read()
    assert live is not None
    assert live.version == "2.3, and the server's library is of 2.2, and no update leads there"
    assert declared.refusal(live) is not None
    with pytest.raises(UserError, match="Install a pg_tde that has one on every server"):
        declared.update(live)
    node.rows("DROP DATABASE former")
    assert declared.read() is None


def test_a_database_that_is_missing_is_told_as_such(node: Node, store: KeyStore) -> None:
    with pytest.raises(NoDatabase) as told:
        provider(node, store, database="nowhere").read()
    assert str(told.value) == f"key provider vault: the server on {node.data} has no database nowhere"


def test_provider_from_nothing_to_nothing(node: Node, extension: Extension, store: KeyStore) -> None:
    assert extension.read()
    declared = provider(node, store, provider="brief")
    assert declared.read() is None
    made = declared.create()
    assert made.read() == made
    assert declared.create() == made
    made.delete()
    assert declared.read() is None
    made.delete()


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("token_path", "../other.vault-token"),
        ("ca_path", ""),
        ("mount_path", "other"),
    ],
)
def test_a_providers_drift_is_found_and_repaired(
    node: Node, vault: KeyProvider, store: KeyStore, field: str, other: str
) -> None:
    """What was there before counts as drift; an update brings it back."""
    assert vault.read() == vault
    declared = vault.replace(**{field: other})
    live = declared.read()
    assert live is not None
    assert declared.changed(live) == {field}
    node.host.write(node.data.parent / "other.vault-token", store.token("primary").encode(), mode=0o600)
    if field == "token_path":
        declared.update(live)
        assert declared.read() == declared
        back = declared.read()
        assert back is not None
        vault.update(back)
        assert vault.read() == vault


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("mount_path", "no-such-mount"),
        ("url", "https://127.0.0.1:1"),
        ("token_path", "../no-such-token"),
        ("ca_path", ""),
    ],
)
def test_what_a_provider_cannot_work_with_is_told_in_one_sentence(
    node: Node, extension: Extension, store: KeyStore, field: str, wrong: str
) -> None:
    assert extension.ours
    declared = provider(node, store, provider=f"wrong-{field.replace('_', '-')}", **{field: wrong})
    with pytest.raises(UserError, match=rf"^key provider {declared.provider}: ") as told:
        declared.create()
    assert "\n" not in str(told.value)
    assert "hvs." not in str(told.value)
    assert "s." not in str(told.value).split()
    node.rows(
        "SELECT pg_tde_delete_global_key_provider(name) FROM pg_tde_list_all_global_key_providers() WHERE name = %s",
        [declared.provider],
    )


def test_a_provider_that_was_taken_with_a_warning_is_no_success_the_next_time_either(
    node: Node, extension: Extension, store: KeyStore
) -> None:
    """pg_tde keeps a provider on a mount that does not exist; a second `up` must not take it for done."""
    assert extension.ours
    node.host.write(node.data.parent / "root.vault-token", store.openbao.token.encode(), mode=0o600)
    token = "../root.vault-token"  # with less, this is an error at once
    declared = provider(node, store, provider="half", mount_path="no-such-mount", token_path=token)
    with pytest.raises(UserError, match=r"failed to get mount info.*: check vault:address, vault.mount"):
        declared.create()
    try:
        with pytest.raises(UserError, match="failed to get mount info"):
            declared.create()
    finally:
        declared.delete()


def test_a_provider_in_a_namespace(node: Node, extension: Extension, store: KeyStore) -> None:
    """Mount, policy and token are in it, so pg_tde must ask there."""
    assert extension.ours
    client = store.in_namespace("department")
    node.host.write(node.data.parent / "department.vault-token", store.token("primary", client).encode(), mode=0o600)
    fields = {"provider": "apart", "token_path": "../department.vault-token"}
    declared = provider(node, store, namespace="department", **fields)
    with pytest.raises(UserError, match="key provider apart: "):
        declared.replace(namespace="").create()
    assert declared.read() is None
    assert declared.create() == declared
    assert declared.read() == declared
    key(node, "of-the-department", provider="apart").create()
    stored = client.secrets.kv.v2.read_secret_version(
        "of-the-department", mount_point=MOUNT, raise_on_deleted_version=True
    )
    assert stored["data"]["data"]["key"]

    node.rows(
        "SELECT pg_tde_change_global_key_provider_vault_v2(%s, %s, %s, '../orders.vault-token', %s)",
        ["apart", store.openbao.address, MOUNT, "../orders.vault-ca.pem"],
    )
    live = declared.read()
    assert live is not None
    assert declared.changed(live) == {"namespace", "token_path"}
    declared.update(live)
    assert declared.read() == declared
    declared.delete()


def test_the_same_untouched_writes_nothing(bound: Node, store: KeyStore) -> None:
    """Setting a key again is a rotation: a second `up` must not."""
    before = [set_at(bound, scope) for scope in ("server", "default")]
    flushed = bound.value("SELECT pg_current_wal_insert_lsn()")
    for declared in (provider(bound, store), key(bound), binding(bound, "server"), binding(bound, "default")):
        assert declared.read() == declared
        assert declared.create() == declared
    assert [set_at(bound, scope) for scope in ("server", "default")] == before
    assert bound.value("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", [flushed]) < 1000
    assert store.versions("orders-key") == 1


def test_a_key_of_another_name_set_by_hand_is_found_and_put_back(bound: Node) -> None:
    key(bound, "by-hand").create()
    for scope in ("server", "default"):
        declared = binding(bound, scope)
        bound.rows(f"SELECT pg_tde_set_{scope}_key_using_global_key_provider('by-hand', 'vault')")
        live = declared.read()
        assert live is not None
        assert declared.changed(live) == {"key"}
        assert live.key == "by-hand"
        declared.update(live)
        assert declared.read() == declared
    binding(bound, "server").create()
    assert binding(bound, "server").read() == binding(bound, "server")


def test_what_an_adopted_primary_has_already_is_taken_as_it_is_or_not_at_all(bound: Node, store: KeyStore) -> None:
    """Another would be a rotation or a provider that its own standbys may not be able to use."""
    for same in (provider(bound, store, adopted=True), binding(bound, "server", adopted=True)):
        assert same.create() == same
    before = [set_at(bound, scope) for scope in ("server", "default")]
    key(bound, "another").create()
    for scope in ("server", "default"):
        with pytest.raises(Conflict, match=f'^{scope} key: the server has "orders-key" of provider "vault" already'):
            binding(bound, scope, "another", adopted=True).create()
    assert [set_at(bound, scope) for scope in ("server", "default")] == before
    other = provider(bound, store, token_path="../another.vault-token", adopted=True)
    with pytest.raises(Conflict, match=r"of this name already, with another tokenPath \(\.\./orders\.vault-token\): "):
        other.create()
    assert provider(bound, store).read() == provider(bound, store)


def test_keys_and_bindings_outlive_their_resources(bound: Node, store: KeyStore, vault: KeyProvider) -> None:
    for declared in (binding(bound, "default"), binding(bound, "server"), key(bound)):
        declared.delete()
    assert store.versions("orders-key") == 1
    assert binding(bound, "server").read() == binding(bound, "server")
    vault.delete()  # in use: it stays
    assert vault.read() == vault


@pytest.mark.parametrize(("cipher", "length"), [("aes_128", 24), ("aes_256", 44)])
def test_the_length_of_a_key(bound: Node, store: KeyStore, cipher: Cipher, length: int) -> None:
    declared = key(bound, f"for-{cipher}", cipher=cipher)
    for _ in range(2):  # the second one takes over what an interrupted run left
        declared.create()
    stored = store.client.secrets.kv.v2.read_secret_version(
        f"for-{cipher}", mount_point=MOUNT, raise_on_deleted_version=True
    )
    assert len(stored["data"]["data"]["key"]) == length
    [other] = {"aes_128", "aes_256"} - {cipher}
    with pytest.raises(Conflict, match=f"is in Vault already, but does not have the length for cipher: {other}"):
        key(bound, f"for-{cipher}", cipher=other).create()
    assert store.versions(f"for-{cipher}") == 1


def test_a_key_in_use_of_another_length_is_known_and_hinders_no_provider(bound: Node, store: KeyStore) -> None:
    def in_use() -> list[tuple[str, str, str | None]]:
        with server_session(bound.host, bound.data, "keys") as server:
            return [(one.scope, one.name, one.cipher) for one in keys_in_use(PgTde(server))]

    before = [("server", "orders-key", "aes_128"), ("default", "orders-key", "aes_128")]
    assert in_use() == before
    changed = provider(bound, store, token_path=str(bound.data.parent / "orders.vault-token"))
    bound.rows("ALTER SYSTEM SET pg_tde.cipher = aes_256")
    try:
        bound.rows("SELECT pg_reload_conf()")
        assert until(lambda: bound.value("SHOW pg_tde.cipher") == "aes_256", seconds=10)
        assert in_use() == before
        assert changed.update(provider(bound, store)).read() == changed
        assert provider(bound, store).update(changed).read() == provider(bound, store)
    finally:
        bound.rows("ALTER SYSTEM RESET pg_tde.cipher")
        bound.rows("SELECT pg_reload_conf()")
    assert until(lambda: bound.value("SHOW pg_tde.cipher") == "aes_128", seconds=10)


def test_a_pg_tde_without_a_choice_of_cipher_makes_no_longer_key(
    bound: Node, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tde_replication.postgres.principal_key.cipher_in_force", lambda _: None)
    with pytest.raises(Conflict, match=r"principal key elder: cipher: aes_256 needs pg_tde 2\.2 or newer"):
        key(bound, "elder", cipher="aes_256").create()
    key(bound, "elder").create()
    assert store.versions("elder") == 1


def test_a_lost_key_is_not_rotated_away_and_no_standby_blamed(bound: Node, store: KeyStore) -> None:
    secrets = store.client.secrets.kv.v2
    kept = secrets.read_secret_version("orders-key", mount_point=MOUNT, raise_on_deleted_version=True)["data"]["data"]
    before = set_at(bound, "server")
    secrets.delete_metadata_and_all_versions("orders-key", mount_point=MOUNT)
    try:
        says = r'server key: principal key orders-key is lost: key "orders-key" not found in .* \(SQLSTATE P0002'
        with pytest.raises(UserError, match=says):
            binding(bound, "server", "next", standbys=[("local", "/nowhere")], slots=["tde_nowhere"]).create()
    finally:
        secrets.create_or_update_secret("orders-key", kept, mount_point=MOUNT)
    assert set_at(bound, "server") == before
    assert binding(bound, "server").read() == binding(bound, "server")


def test_a_missing_key_is_told(bound: Node) -> None:
    with pytest.raises(UserError, match=r'default key: key "nowhere" does not exist \(SQLSTATE 22023\)'):
        binding(bound, "default", "nowhere").create()
    assert binding(bound, "default").read() == binding(bound, "default")


def test_a_provider_that_does_not_exist_is_told(bound: Node) -> None:
    with pytest.raises(UserError, match='principal key k: key provider "nowhere" does not exist'):
        key(bound, "k", provider="nowhere").create()


def test_a_token_that_may_not_is_told_and_repaired(bound: Node, store: KeyStore) -> None:
    token = bound.data.parent / "orders.vault-token"
    good = bound.host.read(token) or b""
    bound.host.write(token, store.token("standby").encode(), mode=0o600)
    try:
        with pytest.raises(
            UserError, match=r"principal key forbidden: .* token must be allowed to create and read it"
        ) as told:
            key(bound, "forbidden").create()
        assert "\n" not in str(told.value)
        bound.host.write(token, b"revoked", mode=0o600)
        live = key(bound).read()
        assert key(bound).changed(live) == {"available"}
        assert "failed to retrieve principal key" in live.available
        with pytest.raises(UserError, match=r"cannot be opened: .*It is never made again"):
            key(bound).update(live)
    finally:
        bound.host.write(token, good, mode=0o600)
    assert key(bound).update(key(bound)) == key(bound)
    assert key(bound).read() == key(bound)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), r"\(SQLSTATE 58P01\)"),
        (lambda path: os.chown(path, 0, 0), r"\(SQLSTATE 42501\)"),
    ],
    ids=["removed", "of another owner"],
)
def test_a_token_file_that_cannot_be_read_is_answered_for_by_its_own_resource(
    bound: Node, store: KeyStore, spoil: Callable[[Path], None], says: str
) -> None:
    """pg_tde opens it even to list providers."""
    if os.geteuid() != 0:
        pytest.skip("who is not root cannot give a file away")
    token = bound.data.parent / "orders.vault-token"
    good = bound.host.read(token) or b""
    spoil(Path(token))
    try:
        for declared in (provider(bound, store), key(bound), binding(bound, "server"), binding(bound, "default")):
            with pytest.raises(Unavailable, match=says):
                declared.read()
    finally:
        bound.host.write(token, good, mode=0o600)
    assert provider(bound, store).read() == provider(bound, store)


def test_nothing_is_changed_during_a_base_backup(bound: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of the server's own that is in the middle of one; slowed down, the real one would make this a timed test."""
    asked = Session.row

    def busy(session: Session, query: Any, parameters: Any = ()) -> Any:
        return (1,) if "pg_stat_progress_basebackup" in str(query) else asked(session, query, parameters)

    monkeypatch.setattr(Session, "row", busy)
    key(bound, "next").create()
    before = set_at(bound, "server")
    with pytest.raises(UserError, match="a base backup of the primary is running: nothing was changed"):
        binding(bound, "server", "next").create()
    assert set_at(bound, "server") == before


def test_a_provider_of_another_type_is_shown_and_left_as_it_is(bound: Node, store: KeyStore) -> None:
    bound.rows("SELECT pg_tde_add_global_key_provider_file('a-file', '/tmp/tde-no-keys-here')")
    declared = provider(bound, store, provider="a-file")
    try:
        found = declared.read()
        assert found
        assert declared.changed(found) == {"type"}
        assert "one of type file has this name, and is left as it is: name another in vault.provider" in str(
            declared.refusal(found)
        )
        with pytest.raises(Conflict, match="one of type file has this name"):
            declared.create()
        declared.delete()
        assert declared.read() == found
    finally:
        bound.rows("SELECT pg_tde_delete_global_key_provider('a-file')")


@pytest.fixture(scope="module")
def standby(bound: Node, cluster: Servers, store: KeyStore) -> Iterator[Node]:
    clone = cluster.clone(bound, "crypt2")
    store.equip(bound.host, clone.path, "standby")
    made = cluster.on_clone(clone.create(), "crypt2", bound)
    yield made
    made.stop()
    ReplicationSlot.model_validate({**bound.inside, "slot": clone.slot}).delete()


def replayed(bound: Node, standby: Node) -> None:
    """Wait until the standby has replayed all that was written until now."""
    written = bound.value("SELECT pg_current_wal_insert_lsn()::text")
    assert until(lambda: standby.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]), seconds=20)


@contextmanager
def blind(bound: Node, standby: Node) -> Iterator[None]:
    """A token that opens nothing, once the standby has replayed the rotations until now: it would die of the last one."""
    replayed(bound, standby)
    token = standby.data.parent / "orders.vault-token"
    good = standby.host.read(token) or b""
    standby.host.write(token, b"revoked", mode=0o600)
    try:
        yield
    finally:
        standby.host.write(token, good, mode=0o600)


def test_a_standby_opens_the_key_and_holds_encrypted_tables(bound: Node, standby: Node) -> None:
    proof = check(bound, standby)
    assert proof.create() == proof
    assert bound.rows("SELECT 1 FROM pg_class WHERE relname LIKE 'tde_replication_check%'") == []
    bound.rows("CREATE TABLE kept USING tde_heap AS SELECT 7 AS n")
    proof.create()
    assert standby.rows("SELECT n, pg_tde_is_encrypted('kept') FROM kept") == [(7, True)]
    bound.rows("DROP TABLE kept")


def test_a_rotation_waits_for_a_standby_that_could_not_open_the_key(
    bound: Node, standby: Node, store: KeyStore
) -> None:
    """It would die of it."""
    key(bound, "rotated").create()
    place = {"standbys": [("local", str(standby.data))], "slots": [check(bound, standby).slot]}
    declared = binding(bound, "server", "rotated", **place)
    before = set_at(bound, "server")
    with blind(bound, standby):
        with pytest.raises(UserError, match=f"the standby on {standby.data} cannot open its keys: "):
            declared.update(binding(bound, "server"))
        with pytest.raises(UserError, match=f"the standby on {standby.data} cannot open its keys: "):
            declared.create()  # that finds another key
    assert set_at(bound, "server") == before
    declared.update(binding(bound, "server"))
    assert declared.read() == declared
    check(bound, standby).create()
    assert store.versions("rotated") == 1


def test_the_next_rotation_is_by_what_vault_has_and_nothing_goes_back(bound: Node, store: KeyStore) -> None:
    client = Client(store.openbao.address, store.client.token, str(store.openbao.ca))
    binding(bound, "server").update(binding(bound, "server"))
    found = newest_key(client, MOUNT, "orders-key", ())
    assert (found.name, found.others) == ("orders-key", ())
    assert found.made
    assert 0 <= (datetime.now(UTC) - found.made).total_seconds() < 600
    late = datetime.now(UTC) + timedelta(days=90)
    due, *others = found.names("90d", late)
    key(bound, due).create()
    rotated = binding(bound, "server", due)
    rotated.update(binding(bound, "server"))
    assert rotated.read() == rotated
    again = newest_key(client, MOUNT, "orders-key", ())
    assert (again.name, again.others) == ("orders-key-rotation-1", tuple(others))
    assert again.made
    assert again.made > found.made  # and not due any more
    before = set_at(bound, "server")
    for back in (partial(binding(bound, "server").update, rotated), binding(bound, "server").create):
        with pytest.raises(UserError, match="the server uses orders-key-rotation-1, a later rotation of orders-key"):
            back()
    assert set_at(bound, "server") == before
    for name in ("by-hand", "orders-key"):  # for the next test, by another key
        key(bound, name).create()
        binding(bound, "server", name).update(rotated)


def test_a_rotation_waits_for_a_standby_that_streams_and_cannot_be_asked(bound: Node, standby: Node) -> None:
    slot = check(bound, standby).slot
    key(bound, "unasked").create()
    elsewhere = [("local", str(standby.data.with_name("unreachable")))]
    declared = binding(bound, "server", "unasked", standbys=elsewhere, slots=[slot])
    before = set_at(bound, "server")
    with pytest.raises(UserError, match=r"unreachable streams, and whether it can open its keys cannot be asked \("):
        declared.update(binding(bound, "server"))
    assert set_at(bound, "server") == before
    # One that is down opens the key when it starts.
    down = binding(bound, "server", "unasked", standbys=elsewhere, slots=["tde_nobody"])
    down.update(binding(bound, "server"))
    assert down.read() == down
    check(bound, standby).create()  # it has replayed that


def test_a_rotation_of_an_adopted_server_waits_for_standbys_that_are_not_ours(bound: Node, standby: Node) -> None:
    key(bound, "adopted").create()
    slot = check(bound, standby).slot
    before = set_at(bound, "server")
    former = binding(bound, "server", adopted=True)
    with pytest.raises(
        UserError, match=r"standbys that this stack did not make stream from the server \(crypt2 from 127"
    ):
        binding(bound, "server", "adopted", adopted=True).update(former)
    assert set_at(bound, "server") == before
    place = {"standbys": [("local", str(standby.data))], "slots": [slot]}
    binding(bound, "server", "adopted", adopted=True, **place).update(former)
    assert set_at(bound, "server") != before
    check(bound, standby).create()  # it has replayed that


@pytest.fixture(scope="module")
def own(bound: Node, standby: Node) -> KeyBinding:
    """The key of a database that is new."""
    Extension.model_validate({**bound.inside, "database": "own"}).create()
    key(bound, "own-key").create()
    place = {"standbys": [("local", str(standby.data))], "slots": [check(bound, standby).slot]}
    return binding(bound, "database", "own-key", database="own", **place)


def _in_own(node: Node, query: str) -> list[Any]:
    return node.rows(query, database="own")


def test_a_database_has_a_key_of_its_own(bound: Node, standby: Node, own: KeyBinding) -> None:
    assert own.identity == "key of own"
    assert own.read() is None
    own.create()
    assert own.read() == own
    before = _in_own(bound, "SELECT key_creation_time FROM pg_tde_key_info()")
    _in_own(bound, "CREATE TABLE kept USING tde_heap AS SELECT 7 AS n")
    own.create()
    assert _in_own(bound, "SELECT key_creation_time FROM pg_tde_key_info()") == before
    assert until(lambda: standby.rows("SELECT 1 FROM pg_database WHERE datname = 'own'") == [(1,)], seconds=20)
    assert until(lambda: _kept(standby) == [(7,)], seconds=20)
    made = key(bound, "own-key", database="own")
    assert made.read() == made
    assert [used.name for used in keys_of(bound, "own")][2:] == ["own-key"]
    key(bound, "by-hand").create()
    _in_own(bound, "SELECT pg_tde_set_key_using_global_key_provider('by-hand', 'vault')")
    own.delete()  # not what somebody else has set
    live = own.read()
    assert live is not None
    assert live.key == "by-hand"
    assert own.changed(live) == {"key"}
    own.update(live)
    assert own.read() == own


def test_a_preview_tells_of_a_lost_key_of_a_database_that_is_not_the_first(
    bound: Node, standby: Node, own: KeyBinding, store: KeyStore
) -> None:
    assert own.read() == own
    replayed(bound, standby)  # a standby that cannot open the key of a rotation dies of it
    declared = stack_file.parse("test", {"databases": ["own"], "keys": {"own": {"name": "own-key"}}})
    place = Mock(address="local", data=bound.data)
    assert check_keys_in_use(declared, place, "orders-key") == []
    secrets = store.client.secrets.kv.v2
    kept = secrets.read_secret_version("own-key", mount_point=MOUNT, raise_on_deleted_version=True)["data"]["data"]
    secrets.delete_metadata_and_all_versions("own-key", mount_point=MOUNT)
    try:
        [told] = check_keys_in_use(declared, place, "orders-key")
    finally:
        secrets.create_or_update_secret("own-key", kept, mount_point=MOUNT)
    assert told.startswith("cluster.keys.own.name: principal key own-key is lost: ")


def test_a_database_has_the_default_key_again(bound: Node, standby: Node, own: KeyBinding) -> None:
    """For its tables are encrypted; and only where standbys can open keys."""
    default = bound.rows("SELECT key_name FROM pg_tde_default_key_info()")
    with blind(bound, standby), pytest.raises(UserError, match=f"the standby on {standby.data} cannot open its keys: "):
        own.delete()
    assert own.read() == own
    own.delete()
    assert _in_own(bound, "SELECT key_name FROM pg_tde_key_info()") == default
    live = own.read()
    assert live is not None
    assert own.changed(live) == {"key"}
    assert [used.scope for used in keys_of(bound, "own")] == ["server", "default"]
    live.delete()  # the default key is not this one's to unset
    own.delete()
    assert _in_own(bound, "SELECT key_name FROM pg_tde_key_info()") == default
    own.replace(adopted=True).create()  # what it has is no key of its own
    assert own.read() == own
    _in_own(bound, "DROP TABLE kept")
    own.delete()
    assert own.read() is None
    own.delete()
    check(bound, standby).create()  # it has replayed all that
    assert until(lambda: _kept(standby) == [], seconds=20)
    bound.rows("DROP DATABASE own")
    own.delete()


def _kept(standby: Node) -> list[Any]:
    """The rows of the table in database `own`; none where it is not there."""
    there = standby.rows("SELECT 1 FROM pg_class WHERE relname = 'kept'", database="own")
    return standby.rows("SELECT n FROM kept", database="own") if there else []


def keys_of(node: Node, database: str) -> list[KeyInUse]:
    with server_session(node.host, node.data, "test", database) as server:
        return list(keys_in_use(PgTde(server)))


def test_nothing_is_ever_set_on_a_standby(standby: Node, store: KeyStore) -> None:
    """Even a call that fails would rewrite its key files, and creating a key would succeed (facts, E6)."""
    store.equip(standby.host, standby.data, "primary")
    files = Path(standby.data) / "pg_tde"
    before = {file.name: file.read_bytes() for file in files.iterdir()}
    try:
        for call in (
            binding(standby, "server", "by-hand").create,
            binding(standby, "default", "by-hand").create,
            key(standby, "made-on-a-standby").create,
            provider(standby, store, provider="made-on-a-standby").create,
        ):
            with pytest.raises(UserError, match="is a standby"):
                call()
    finally:
        store.equip(standby.host, standby.data, "standby")
    assert {file.name: file.read_bytes() for file in files.iterdir()} == before


def test_a_change_that_a_standby_cannot_follow_is_taken_back(bound: Node, standby: Node, store: KeyStore) -> None:
    """pg_tde asks the primary alone."""
    declared = provider(bound, store, url=elsewhere(store), others=[("local", str(standby.data))])
    live = declared.read()
    assert live
    token = standby.data.parent / "orders.vault-token"
    good = standby.host.read(token) or b""
    standby.host.write(token, b"of-nobody", mode=0o600)
    with pytest.raises(UserError) as told:
        declared.update(live)
    assert f"the standby on {standby.data} cannot open its keys by {elsewhere(store)}" in str(told.value)
    assert f"It was changed back to {live.url} (mount {live.mount_path})" in str(told.value)
    assert declared.read() == live
    standby.host.write(token, good, mode=0o600)
    assert declared.update(live) == declared
    assert declared.read() == declared
    live.replace(others=declared.others).update(declared)
    replayed(bound, standby)
    assert standby.value("SELECT pg_tde_verify_server_key()") == ""


def elsewhere(store: KeyStore) -> str:
    """The same Vault by another name."""
    return store.openbao.address.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize(("name", "content"), [("orders.vault-token", "of-nobody"), ("orders.vault-ca.pem", "no CA")])
def test_a_file_with_which_a_server_opens_no_key_is_put_back(bound: Node, name: str, content: str) -> None:
    file = HostFile(host="local", path=str(bound.data.parent / name), content=SecretStr(content))
    good, live = bound.host.read(bound.data.parent / name), file.read()
    assert live
    with pytest.raises(UserError, match=rf"{re.escape(name)} was put back, because with the new one "):
        file.update(live)
    assert bound.host.read(bound.data.parent / name) == good
    assert bound.value("SELECT pg_tde_verify_server_key()") == ""


def test_a_move_waits_for_a_standby_that_could_not_open_the_key_of_the_other_provider(
    bound: Node, standby: Node, store: KeyStore
) -> None:
    """It is asked to make it, which it may not: so it reads it, and no key is made or changed."""
    for node, kind in ((bound, "primary"), (standby, "standby")):
        node.host.write(node.data.parent / "orders.other-token", store.token(kind).encode(), mode=0o600)
    there = provider(bound, store, provider="other", token_path="../orders.other-token")
    there.create()
    versions = store.versions("orders-key")
    token = standby.data.parent / "orders.other-token"
    good = standby.host.read(token) or b""
    standby.host.write(token, b"of-nobody", mode=0o600)
    place = {"standbys": [("local", str(standby.data))], "slots": [check(bound, standby).slot]}
    declared = binding(bound, "server", "orders-key", provider="other", **place)
    live = binding(bound, "server").read()
    assert live
    before = set_at(bound, "server")
    with pytest.raises(UserError, match=f"the standby on {standby.data} cannot open its keys: "):
        declared.update(live)
    assert set_at(bound, "server") == before
    standby.host.write(token, good, mode=0o600)
    declared.update(live)
    info = "SELECT key_name || ' ' || provider_name FROM pg_tde_server_key_info()"
    assert standby.value(info) == "orders-key other"
    assert store.versions("orders-key") == versions
    live.replace(**place).update(declared)
    replayed(bound, standby)
    files = [
        HostFile(host="local", path=str(node.data.parent / "orders.other-token"), content=SecretStr(""))
        for node in (bound, standby)
    ]
    with pytest.MonkeyPatch.context() as soon:
        soon.setattr(host_file, "REPLAY_DEADLINE", 0.1)
        for file in files:
            with pytest.raises(UserError, match=r"orders\.other-token stays: the server in .* key provider other, "):
                file.delete()
    there.delete()
    for file in files:  # that of the standby waits until it has replayed that
        file.delete()
        assert file.read() is None


def test_a_standby_of_a_primary_that_has_only_a_server_key(cluster: Servers, store: KeyStore) -> None:
    """No table can be encrypted there: what there is to prove is that it opens the server key."""
    primary = cluster.primary("single", shared_preload_libraries="pg_tde")
    store.equip(primary.host, primary.data, "primary")
    Extension.model_validate(here(primary)).create()
    provider(primary, store).create()
    key(primary, "single").create()
    binding(primary, "server", "single").create()
    clone = cluster.clone(primary, "single2")
    store.equip(primary.host, clone.path, "standby")
    standby = cluster.on_clone(clone.create(), "single2", primary)
    proof = check(primary, standby)
    assert proof.create() == proof
    standby.host.write(standby.data.parent / "orders.vault-token", b"revoked", mode=0o600)
    with pytest.raises(UserError, match=f"standby {standby.server.name}: .*failed to retrieve principal key"):
        proof.create()
    standby.stop()
    key(primary, "own").create()
    own = binding(primary, "database", "own").create()
    primary.rows("CREATE TABLE kept USING tde_heap AS SELECT 7 AS n")
    told: list[str] = []
    with reported_to(lambda text, _: told.append(text)):
        own.delete()
    [text] = told
    assert text.startswith("key of postgres: own stays set: ")
    assert "There are encrypted tables in the database" in text
    assert own.read() == own


def wal(node: Node, cluster: Servers, **fields: str | bool) -> WalEncryption:
    declared = {"name": "crypt", "binaries": str(cluster.programs), "wal_encrypt": "on"}
    return WalEncryption.model_validate(node.inside | declared | fields)


def test_encrypted_wal_waits_where_no_restart_is_allowed(bound: Node, cluster: Servers) -> None:
    """And nothing is set that the next restart by somebody else would bring into force."""
    declared = wal(bound, cluster, restart="refused")
    says = (
        "server crypt must be restarted for pg_tde.wal_encrypt, and the stack says restart: refused: nothing is changed"
    )
    assert says in (declared.refusal(declared.read()) or "")
    with pytest.raises(Conflict, match=says):
        declared.create()
    with pytest.raises(Conflict, match=says):
        declared.update(declared.read())
    assert declared.read().wal_encrypt == "off"


def test_encrypted_wal_with_which_the_server_does_not_start_is_taken_back(
    bound: Node, cluster: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started as before where it fails; by the next update of the server where it was killed then."""
    declared, server = wal(bound, cluster), bound.server

    def fail(*_: object) -> None:
        bound.stop()
        raise UserError("server crypt did not start: the key is gone")

    def die(*_: object) -> None:
        bound.stop()
        raise KeyboardInterrupt

    monkeypatch.setattr(wal_encryption, "restart", fail)
    with pytest.raises(UserError, match=r"the key is gone\. Its former values are put back, and it runs as before"):
        declared.create()
    assert bound.value("SHOW pg_tde.wal_encrypt") == "off"
    monkeypatch.setattr(wal_encryption, "restart", die)
    with pytest.raises(KeyboardInterrupt):
        declared.create()
    found = server.read()
    assert found
    assert found.unfinished == ["pg_tde.wal_encrypt"]
    server.update(found)
    assert bound.value("SHOW pg_tde.wal_encrypt") == "off"
    assert declared.read().wal_encrypt == "off"


def test_encrypted_wal_of_an_adopted_primary_goes_back_without_a_restart(bound: Node, cluster: Servers) -> None:
    declared = wal(bound, cluster, adopted=True)
    made = declared.create()
    assert made.read() == made
    started = bound.value("SELECT pg_postmaster_start_time()")
    told: list[str] = []
    with reported_to(lambda text, _: told.append(text)):
        made.delete()
    assert told == ["WAL of crypt: pg_tde.wal_encrypt is off again from the next start of server crypt on"]
    assert bound.value("SELECT pg_postmaster_start_time()") == started
    assert made.read().wal_encrypt == "on, waiting for a restart"
    assert declared.create().found == "off"
    assert bound.value("SELECT pg_postmaster_start_time()") == started

    declared.create().delete()
    assert declared.read() == declared  # it was so before
    with pytest.raises(Conflict, match="WAL of crypt is encrypted, and this change would turn that off with a restart"):
        wal(bound, cluster, wal_encrypt="off", adopted=True).create()
    assert bound.value("SELECT pg_postmaster_start_time()") == started
    wal(bound, cluster, wal_encrypt="off").create()
    assert bound.value("SHOW pg_tde.wal_encrypt") == "off"


def test_encrypted_wal_and_a_clone_of_it(bound: Node, cluster: Servers, store: KeyStore) -> None:
    declared = wal(bound, cluster)
    assert declared.changed(declared.read()) == {"wal_encrypt"}
    declared.create()
    assert declared.read() == declared
    assert bound.value("SHOW pg_tde.wal_encrypt") == "on"
    started = bound.value("SELECT pg_postmaster_start_time()")
    declared.create()
    assert bound.value("SELECT pg_postmaster_start_time()") == started

    clone = cluster.clone(bound, "crypt3", encrypt_wal=True, cipher="aes_256")
    store.equip(bound.host, clone.path, "standby")
    made = clone.create()
    assert [cipher for _, cipher in file_keys(Path(made.data_directory), "wal_keys")][-2:] == ["aes_128", "aes_256"]
    assert made.read() == made
    made.delete()
    ReplicationSlot.model_validate({**bound.inside, "slot": clone.slot}).delete()
    declared.delete()
    assert declared.read().wal_encrypt == "on, waiting for a restart"
