"""A machine that was just made: what lies on it waits until it lets somebody in."""

from collections.abc import Callable
from typing import Any

import pytest

from tde_replication.errors import AccessDenied, Unavailable, UserError
from tde_replication.hosts.ssh.login import Login
from tde_replication.placeholders import placeholder
from tde_replication.postgres import machine
from tde_replication.postgres.machine import Machine
from tde_replication.progress import reported_to
from tests.ssh.sshd import MISSING, Sshd
from tests.ssh.test_ssh import end_masters, home, public_key, sshd

__all__ = ["end_masters", "home", "sshd"]  # fixtures
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"SSH TESTS DID NOT RUN: {MISSING}")


def of(login: Login) -> Machine:
    return Machine(host=login.address())


def made_after(repair: Callable[[], object], one: Machine, make: Callable[[], Machine]) -> list[str]:
    """What is told while `make` waits; it is repaired when that has begun."""
    told: list[str] = []

    def hear(text: str, _kept: bool) -> None:  # noqa: FBT001 - progress's own call
        told.append(text)
        if len(told) == 1:
            repair()

    with reported_to(hear):
        assert make() == one
    return told


def test_one_that_answers_is_not_waited_for(sshd: Sshd) -> None:
    one = of(sshd.login(account="no-such-account"))  # which its packages make
    assert made_after(lambda: None, one, one.create) == []
    assert one.read() == one
    assert one.identity == one.host.partition("?")[0]


def test_one_that_boots_is_waited_for(sshd: Sshd) -> None:
    one = of(sshd.login())
    sshd.stop()
    told = made_after(sshd.start, one, one.create)
    assert "waiting for a login: " in told[0]
    assert "Connection refused" in told[0]


def test_one_whose_first_boot_has_not_put_the_keys_there_is_waited_for(sshd: Sshd) -> None:
    keys = sshd.home / "authorized"
    content = keys.read_text()
    keys.write_text("")
    one = of(sshd.login())
    told = made_after(lambda: keys.write_text(content), one, one.create)
    assert "denies access to" in told[0]


def test_another_address_is_waited_for_too(sshd: Sshd) -> None:
    former, one = of(Login("127.0.0.1", 1)), of(sshd.login())
    sshd.stop()
    assert made_after(sshd.start, one, lambda: one.update(former))


def test_one_that_never_answers_is_told(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BOOT_SECONDS", 0.3)
    sshd.stop()
    with pytest.raises(Unavailable, match=r"cannot be reached: .*Connection refused"):
        of(sshd.login()).create()


def test_one_that_is_not_the_right_one_is_told_sooner(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FIRST_BOOT_SECONDS", 0.3)
    with pytest.raises(AccessDenied, match=r"shows another host key|is not in known_hosts"):
        of(sshd.login(host_keys=(public_key(sshd.home / "other"),))).create()


@pytest.mark.parametrize("part", ["host", "jump", "host_keys"])
def test_nobody_is_asked_by_an_address_that_is_not_known_yet(sshd: Sshd, part: str) -> None:
    of_db1 = placeholder("db1")
    change: dict[str, Any] = {part: of_db1 if part == "host" else (of_db1,)}
    login = sshd.login(**change)
    with pytest.raises(UserError, match="`up` then checks everything before it touches anything") as told:
        login.expect_made()
    assert vars(told.value)["machine"] == ("db1" if part == "host" else str(login))
