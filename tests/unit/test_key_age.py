"""Rotation of a principal key by its age: which key is the newest, when it is due, and what takes its place."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tde_replication import stack_file, unasked
from tde_replication.errors import Unavailable, UserError
from tde_replication.postgres.key_binding import KeyBinding
from tde_replication.preflight.keys import notice_of_rotation
from tde_replication.rotations import following, is_earlier, is_rotation
from tde_replication.stack_file import StackFileError
from tde_replication.vault.client import Client
from tde_replication.vault.key_age import NewestKey, made_at, newest_key
from tde_replication.vault.names import VaultNames

MADE = datetime(2026, 8, 1, 12, tzinfo=UTC)


class Vault(Client):
    """One with these keys at its mount "tde", by their names; a directory of theirs ends with a slash."""

    def __init__(self, **found: Any) -> None:
        super().__init__("https://vault.example.net")
        object.__setattr__(self, "found", found)

    def get(self, path: str) -> dict[str, Any] | None:
        found: dict[str, Any] = self.found  # type: ignore[attr-defined]
        where, _, query = path.removeprefix("tde/metadata/").partition("?")
        if not query:
            return {"created_time": found[where]} if where in found else None
        return {"keys": [name.removeprefix(where) for name in found if name.startswith(where)]} if found else None


def vault(*keys: str, made: str = "2026-08-01T14:00:00.123456789+02:00") -> Vault:
    return Vault(**dict.fromkeys(keys, made))


@pytest.mark.parametrize(
    ("keys", "newest", "others"),
    [
        ((), "orders", ()),
        (("orders", "ledger", "replication/"), "orders", ()),
        (("orders", "orders-rotation-1"), "orders-rotation-1", ("orders",)),
        (
            ("orders-rotation-10", "orders-rotation-9", "orders"),
            "orders-rotation-10",
            ("orders", "orders-rotation-9"),
        ),
        # Those of others, or nobody's.
        (("orders", "orders-2", "orders-rotation-", "orders-rotation-01", "my-orders-rotation-3"), "orders", ()),
        (("orders", "orders-rotation-2-rotation-1"), "orders", ()),
    ],
)
def test_the_newest_rotation_is_the_key(keys: tuple[str, ...], newest: str, others: tuple[str, ...]) -> None:
    found = newest_key(vault(*keys), "tde", "orders", ())
    assert (found.name, found.others) == (newest, others)
    assert found.made == (MADE.replace(microsecond=123456) if keys else None)


def test_a_key_in_a_directory_and_a_former_one_have_rotations_too() -> None:
    keys = ("team/orders", "team/orders-rotation-1", "orders-rotation-4", "2025", "2025-rotation-1")
    found = newest_key(vault(*keys), "tde", "team/orders", ["2025"])
    assert (found.name, found.others) == ("team/orders-rotation-1", ("team/orders", "2025", "2025-rotation-1"))


@pytest.mark.parametrize(
    ("after", "day", "keys"),
    [
        ("90d", 29, ("orders-rotation-1", "orders")),
        ("90d", 31, ("orders-rotation-2", "orders-rotation-1", "orders")),
        (None, 31, ("orders-rotation-1", "orders")),
    ],
)
def test_a_key_that_is_too_old_is_followed_by_the_next_one(after: str | None, day: int, keys: tuple[str, ...]) -> None:
    """The 90 days of 1 August end on 30 October. Without an age, what was rotated stays."""
    newest = NewestKey("orders-rotation-1", MADE, ("orders",))
    assert newest.names(after, datetime(2026, 10, day, tzinfo=UTC)) == keys


def test_a_key_of_unknown_age_is_not_rotated() -> None:
    assert NewestKey("orders").names("1m", MADE) == ("orders",)


def test_a_preview_says_since_when_the_key_is_there_and_what_comes() -> None:
    cluster = stack_file.parse("test", {"key": {"rotateAfter": "90d"}})
    newest = NewestKey("orders", MADE)
    [told] = notice_of_rotation(cluster, newest, "orders-rotation-1")
    assert told == (
        "key orders is due for rotation: it was created in Vault on 2026-08-01, and key.rotateAfter: 90d expired at 2026-10-30 "
        "12:00 UTC. `up` makes key orders-rotation-1 and rotates to it; orders stays in Vault, because backups need it"
    )
    assert notice_of_rotation(cluster, newest, "orders") == []


def test_a_vault_that_cannot_be_asked_rotates_nothing_and_is_told() -> None:
    class Silent(Vault):
        def get(self, path: str) -> dict[str, Any] | None:
            raise Unavailable(f"the Vault did not answer {path}")

    said: list[str] = []
    with unasked.told(said.append):
        assert newest_key(Silent(), "tde", "orders", ["2025"]) == NewestKey("orders", None, ("2025",))
    assert "which rotation of key orders is the newest, and how old it is" in said[0]
    with pytest.raises(UserError, match="does not report when key orders was made"):
        made_at(vault("orders", made="yesterday"), "tde", "orders")


def test_nothing_goes_back_to_an_earlier_rotation() -> None:
    """As it would where Vault could not be asked for the newest one."""

    def bound(key: str) -> KeyBinding:
        where = {"host": "local", "data_directory": "/data", "system_identifier": "7", "database": "postgres"}
        return KeyBinding.model_validate({**where, "scope": "server", "key": key, "provider": "vault"})

    refused = bound("orders").refusal(bound("orders-rotation-2"))
    assert refused is not None
    assert refused.startswith(
        "server key: the server uses orders-rotation-2, a later rotation of orders, and Vault did not list"
    )
    for live in ("orders", "by-hand", "ledger-rotation-9"):
        assert bound("orders-rotation-1").refusal(bound(live)) is None


def test_names() -> None:
    assert following("orders") == "orders-rotation-1"
    assert following("orders-rotation-9") == "orders-rotation-10"
    assert is_rotation("orders-rotation-9")
    assert not is_rotation("orders-rotation-0")
    assert is_earlier("orders-rotation-9", "orders-rotation-10")
    assert not is_earlier("orders-rotation-10", "orders-rotation-9")
    for key in ({"name": "orders-rotation-1"}, {"name": "orders", "former": ["2025-rotation-2"]}):
        with pytest.raises(StackFileError, match="would be a rotation of another key"):
            stack_file.parse("test", {"key": key})


def test_servers_open_all_rotations_on_a_shared_mount_and_whoever_runs_up_may_ask_for_ages() -> None:
    names = VaultNames(
        *("orders", "p/orders/orders", "shared"),
        shared=True,
        role="replicator",
        keys=("team/key-rotation-1", "team/key", "2025"),
    )
    assert names.key_paths == ["orders/*", "2025", "team/key", "team/key-rotation-1"]
    rights = names.rights()
    assert rights["shared/metadata/team/"] == {"list"}
    assert rights["shared/metadata/team/key"] == rights["shared/metadata/team/key-rotation-1"] == {"read"}
