"""How often `until` asks, and when it gives up (by a clock of ours); what ends a command."""

import threading
import time

import pytest

from tde_replication import waiting
from tde_replication.errors import UserError
from tde_replication.waiting import FIRST_PAUSE, LONGEST_PAUSE, Limit, until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(time, "sleep", made.sleep)
    return made


def test_what_is_so_already_costs_no_pause(clock: Clock) -> None:
    assert until(lambda: True, seconds=0)
    assert clock.pauses == []


def test_pauses_grow_up_to_a_tenth_of_a_second(clock: Clock) -> None:
    assert until(lambda: len(clock.pauses) == 20, seconds=60)
    assert clock.pauses[0] == FIRST_PAUSE
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[-1] == LONGEST_PAUSE


def test_it_gives_up_in_time(clock: Clock) -> None:
    assert not until(lambda: False, seconds=3)
    assert 103 <= clock.now <= 103 + LONGEST_PAUSE


def test_it_asks_once_more_after_the_last_pause(clock: Clock) -> None:
    assert until(lambda: clock.now >= 103, seconds=3)


def test_what_the_question_raises_is_not_swallowed(clock: Clock) -> None:
    def broken() -> bool:
        raise LookupError("the question itself")

    with pytest.raises(LookupError):
        until(broken, seconds=3)
    assert clock.pauses == []


def test_an_interruption_leaves_a_grace(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_interrupted", [])
    waiting.interrupt()
    assert waiting.until(lambda: clock.now >= 105, seconds=3600)  # what comes soon is waited for
    with pytest.raises(UserError, match="interrupted while waiting"):
        waiting.until(lambda: False, seconds=3600)
    assert clock.now <= 100 + waiting.GRACE + LONGEST_PAUSE
    assert not waiting.until(lambda: False, seconds=0)


@pytest.fixture
def uninterrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_interrupted", [])
    monkeypatch.setattr(waiting, "GRACE", 0.01)


@pytest.mark.usefixtures("uninterrupted")
def test_a_command_ends_with_its_time() -> None:
    ended = threading.Event()
    with Limit(0.01, ended.set) as limit:
        assert ended.wait(10)
    assert limit.passed
    limit.expect_not_interrupted("it")


@pytest.mark.usefixtures("uninterrupted")
def test_a_command_ends_after_an_interruption() -> None:
    ended = threading.Event()
    with Limit(3600, ended.set) as limit:
        waiting.interrupt()
        assert ended.wait(10)
    with pytest.raises(UserError, match="interrupted while initdb ran: the next run goes on from here"):
        limit.expect_not_interrupted("initdb")


@pytest.mark.usefixtures("uninterrupted")
def test_what_has_ended_or_begins_later_is_not_ended() -> None:
    ended = threading.Event()
    with Limit(3600, ended.set) as before:
        pass
    waiting.interrupt()
    with Limit(3600, ended.set) as later:
        assert not ended.wait(0.1)
    assert not before.passed
    assert not later.passed
