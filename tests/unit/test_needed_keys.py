"""Which principal keys open which data: told by the heads of pg_tde's key files, and by what Vault says of each key."""

import io
import struct
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tde_replication import settings
from tde_replication.errors import UserError
from tde_replication.needed_keys.__main__ import text
from tde_replication.needed_keys.in_vault import Names, StackVault
from tde_replication.needed_keys.model import ALL_HELD, LACKING, UNKNOWN, Data, InVault, Needed, NeededKey
from tde_replication.needed_keys.reading import of_backup
from tde_replication.postgres.key_files import HEADER_BYTES, KeyFile, parse
from tde_replication.status.declared import Declared
from tde_replication.vault.address import VaultAddress

SINCE = datetime(2026, 6, 30, 12, 0, 0, 250000, tzinfo=UTC)


def head(key: str = "orders-2026", *, kind: bytes = b"TDE", version: int = 4, database: int = 5) -> bytes:
    """As pg_tde 2.2.0 writes it: TDEFileHeader is a version, and in a struct of eight-byte alignment what follows."""
    whole, part = divmod(SINCE.timestamp(), 1)
    info = struct.pack("<IiQQ", database, -1, int(whole), int(part * 1e6)) + key.encode().ljust(256, b"\0")
    return kind + bytes([version]) + bytes(4) + info + bytes(range(32))


def wal_head(key: str = "orders-2026", version: int = 2) -> bytes:
    return head(key, kind=b"WEK", version=version, database=1664)


@pytest.mark.parametrize(
    ("name", "content", "database"),
    [
        ("wal_keys", wal_head(version=1), None),
        ("wal_keys", wal_head(), None),
        ("1663_keys", head(database=1663), 1663),
        ("16402_keys", head(version=3, database=16402), 16402),
    ],
)
def test_a_key_file_names_its_key(name: str, content: bytes, database: int | None) -> None:
    found = parse(name, content + b"entries")
    assert found == KeyFile(database, "orders-2026", -1, SINCE)
    assert found.is_default == (name == "1663_keys")


def test_a_key_file_without_a_key() -> None:
    assert parse("16402_keys", b"") is None
    assert parse("16402_keys", bytes(HEADER_BYTES)) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("wal_keys", head()),
        ("16402_keys", wal_head()),
        ("16402_keys", head(version=5)),
        ("16402_keys", head()[: HEADER_BYTES - 1]),
        (
            "16402_keys",
            head("\udcff".encode(errors="surrogateescape").decode("latin-1")).replace(b"\xc3\xbf", b"\xff\xff"),
        ),
        ("16402_keys", b"?"),
    ],
)
def test_what_pg_tde_does_not_write_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(UserError, match=f"pg_tde/{name}: not a key file"):
        parse(name, content)


def data_directory(path: Path, **files: bytes) -> Path:
    (path / "pg_tde").mkdir(parents=True)
    (path / "PG_VERSION").write_text("18\n")
    for name, content in files.items():
        (path / "pg_tde" / f"{name.lstrip('_')}_keys").write_bytes(content)
    return path


def scopes(data: Data) -> list[tuple[str, str]]:
    return [(key.scope, key.name) for key in data.keys]


def test_of_a_backup_as_a_directory_or_an_archive(tmp_path: Path) -> None:
    plain = data_directory(tmp_path / "plain", wal=wal_head())
    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz")):
        archive = tmp_path / f"base.{suffix}"
        with tarfile.open(archive, mode) as file:  # type: ignore[call-overload]
            for name, content in (("pg_tde/wal_keys", wal_head()), ("base/1/16_keys", b"no")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        assert scopes(of_backup(archive)) == scopes(of_backup(plain)) == [("server", "orders-2026")]
    (tmp_path / "text").write_text("no archive")
    assert "cannot be read" in of_backup(tmp_path / "text").problem
    assert "cannot be read" in of_backup(tmp_path / "nosuch").problem
    assert "neither a data directory" in of_backup(tmp_path).problem
    assert (of_backup(data_directory(tmp_path / "clear")).problem, of_backup(tmp_path / "clear").keys) == ("", ())


def test_a_file_that_is_not_as_expected_is_named_and_hides_no_other(tmp_path: Path) -> None:
    found = of_backup(data_directory(tmp_path / "data", wal=wal_head(), _16402=b"garbage"))
    assert scopes(found) == [("server", "orders-2026")]
    assert "pg_tde/16402_keys: not a key file" in found.problem


class Answers:
    """In place of the client: what Vault says, by path."""

    address = "https://vault.example.net:8200"

    def __init__(self, **metadata: object) -> None:
        self.metadata = {f"tde-orders/metadata/{name}": found for name, found in metadata.items()}

    def get(self, path: str) -> object:
        found = self.metadata.get(path)
        if isinstance(found, Exception):
            raise found
        return found


def version(number: int = 1, **more: object) -> dict[str, object]:
    return {"current_version": number, "versions": {str(number): {"destroyed": False, "deletion_time": "", **more}}}


def completed(
    monkeypatch: pytest.MonkeyPatch, key: NeededKey, known: Names | None = None, **vault: object
) -> NeededKey:
    monkeypatch.setattr(VaultAddress, "client", property(lambda _: Answers(**vault)))
    address = VaultAddress(Answers.address, None, None)
    declared = Declared(Path("/"), "orders", settings.Cluster.model_validate({"servers": {"db1": {}}}), (), address)
    return StackVault(declared, known or Names()).completed(key)


KEY = NeededKey(scope="database", database_oid=16402, name="app", provider="-1", since=SINCE, vault="unknown")


@pytest.mark.parametrize(
    ("metadata", "state", "told"),
    [
        (version(), "held", ""),
        (None, "gone", "Vault has no tde-orders/app"),
        (version(destroyed=True), "gone", "destroyed"),
        (
            version(deletion_time="2026-11-30T10:00:00Z"),
            "deleted",
            "vault kv undelete -mount=tde-orders -versions=1 app",
        ),
        (version(2), "replaced", "version 2"),
        ({}, "unknown", "does not report its versions"),
        (UserError("no answer"), "unknown", "no answer"),
    ],
)
def test_what_vault_says_of_a_key(monkeypatch: pytest.MonkeyPatch, metadata: object, state: InVault, told: str) -> None:
    known = Names({}, {-1: ("vault", "vault-v2", Answers.address, "tde-orders")})
    found = completed(monkeypatch, KEY, known, app=metadata)
    assert found.vault == state
    assert told in found.problem


def test_ids_get_the_names_that_a_running_server_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Names({16402: "shop"}, {-1: ("vault", "vault-v2", Answers.address, "tde-orders")})
    found = completed(monkeypatch, KEY, known, app=version())
    assert (found.database, found.provider, found.vault) == ("shop", "vault", "held")


def test_a_key_of_a_provider_that_nobody_names_is_not_called_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be in another mount, or in another Vault."""
    found = completed(monkeypatch, KEY)
    assert found.vault == "unknown"
    assert "Vault has no tde-orders/app, and no running server says where" in found.problem


@pytest.mark.parametrize(
    ("provider", "told"),
    [
        (("ring", "file", "", ""), "key provider ring is of type file"),
        (("other", "vault-v2", "https://elsewhere.example.net:8200", "tde-orders"), "of another Vault"),
    ],
)
def test_a_key_of_another_place_is_not_looked_up_here(
    monkeypatch: pytest.MonkeyPatch, provider: tuple[str, str, str, str], told: str
) -> None:
    found = completed(monkeypatch, KEY, Names({}, {-1: provider}), app=version())
    assert found.vault == "not looked up"
    assert told in found.problem


def test_a_name_from_a_file_reaches_no_other_path_of_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = completed(monkeypatch, KEY.model_copy(update={"name": "../../sys/seal"}))
    assert (found.vault, found.problem) == ("unknown", "its name is not one that a Vault takes")


def listed(**changed: object) -> Needed:
    keys = (KEY.model_copy(update={"provider": "vault", "vault": "held"} | changed),)
    return Needed(
        stack="orders", mount="tde-orders", data=(Data(server="db1", path="/srv/data", use="in use", keys=keys),)
    )


def test_the_list_says_it_in_words() -> None:
    gone = listed(vault="gone", problem="Vault has no tde-orders/app").model_copy(update={"others": ("orders-2025",)})
    assert text(gone) == (
        "orders: the keys that open its data, as pg_tde's files have it; Vault's mount tde-orders\n"
        "db1   /srv/data   in use\n"
        "   database with oid 16402: app of vault since 2026-06-30: GONE, so that this data cannot be opened: "
        "Vault has no tde-orders/app\n"
        "in Vault, and not needed for these: orders-2025. Other backups may need them\n"
    )
    assert "\x1b" not in text(listed(name="\x1b[31mred"))


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (listed, ALL_HELD),
        (lambda: listed(vault="deleted"), LACKING),
        (lambda: listed(vault="unknown"), UNKNOWN),
        (lambda: Needed(stack="s", mount="m", data=(Data(path="/b", use="given", problem="unreadable"),)), UNKNOWN),
        (lambda: Needed(stack="s", mount="m", data=(Data(path="/b", use="given"),)), ALL_HELD),
    ],
)
def test_the_exit_status(found: Callable[[], Needed], code: int) -> None:
    assert found().code == code
