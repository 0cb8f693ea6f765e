"""What reads share: asked once, an error too, and nothing of it once something changes."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tde_replication.errors import CommandFailed, Unavailable
from tde_replication.hosts import facts
from tde_replication.hosts.facts import Facts, InDoubt, Lasting

PATIENCE = 20


class Machine:
    """Answers with how often it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error

    def answer(self) -> int:
        self.asked += 1
        if self.error:
            raise self.error
        return self.asked

    def through(self, known: Facts) -> int:
        with known.read():
            found = facts.current()
            return found.ask("key", self.answer) if found else self.answer()


class Door(Lasting):
    def __init__(self) -> None:
        self.closed = threading.Event()

    @property
    def is_good(self) -> bool:
        return not self.closed.is_set()

    def close(self) -> None:
        self.closed.set()


def test_a_question_is_asked_once_and_whoever_asks_meanwhile_waits() -> None:
    known, machine, begun, go_on = Facts(), Machine(), threading.Event(), threading.Event()

    def slowly() -> int:
        begun.set()
        assert go_on.wait(PATIENCE)
        return machine.answer()

    with known.read(), ThreadPoolExecutor(4) as threads:
        first = threads.submit(known.ask, "key", slowly)
        assert begun.wait(PATIENCE)
        others = [threads.submit(known.ask, "key", machine.answer) for _ in range(3)]
        go_on.set()
        assert [first.result(PATIENCE), *(other.result(PATIENCE) for other in others)] == [1, 1, 1, 1]
    assert machine.asked == 1


@pytest.mark.parametrize("error", [Unavailable("it is down"), CommandFailed("ls", 2, "no")], ids=str)
def test_an_error_is_an_answer_to_each(error: Exception) -> None:
    known, machine = Facts(), Machine(error)
    with known.read():
        for _ in range(3):
            with pytest.raises(type(error), match=re.escape(str(error))):
                machine.through(known)
    assert machine.asked == 1


def test_a_fault_of_ours_is_no_answer() -> None:
    known, machine = Facts(), Machine(ZeroDivisionError())
    with known.read():
        with pytest.raises(ZeroDivisionError):
            machine.through(known)
        machine.error = None
        assert machine.through(known) == 2


def test_the_next_refresh_asks_again() -> None:
    known, machine, door = Facts(), Machine(), Door()
    with known.read(idle=0):
        assert [known.ask("key", machine.answer), known.ask("key", machine.answer)] == [1, 1]
        assert known.ask("door", lambda: door) is door
        assert not door.closed.is_set()
    assert door.closed.wait(PATIENCE)
    assert machine.through(known) == 2


def test_an_answer_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    known, machine, door = Facts(), Machine(), Door()
    with known.read():
        machine.through(known)
        known.ask("door", lambda: door)
        monkeypatch.setattr(facts, "AGE", 0.0)
        assert machine.through(known) == 2
        assert known.ask("door", Door) is door  # which finds out by itself whether it is good
        door.close()
        assert known.ask("door", Door) is not door


def test_a_change_forgets_and_nothing_is_kept_until_its_end() -> None:
    known, machine, door = Facts(), Machine(), Door()
    with known.read():
        assert machine.through(known) == 1
        known.ask("door", lambda: door)
        with known.change():
            assert door.closed.is_set()
            assert facts.current() is None
            assert machine.through(known) == 2
            assert machine.through(known) == 3
        assert machine.through(known) == 4
        assert machine.through(known) == 4


def test_what_was_being_asked_when_a_change_began_is_not_kept() -> None:
    known, machine, begun, go_on = Facts(), Machine(), threading.Event(), threading.Event()

    def slowly(answer: Any) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        return answer

    for answer in ("before", door := Door()):
        begun.clear()
        go_on.clear()
        with known.read(), ThreadPoolExecutor(1) as threads:
            asking = threads.submit(known.ask, "key", lambda answer=answer: slowly(answer))
            assert begun.wait(PATIENCE)
            with known.change():
                go_on.set()
                assert asking.result(PATIENCE) is answer
            assert known.ask("key", machine.answer) == machine.asked
            known.forget()
    assert door.closed.is_set()


def test_what_does_not_change_anything_shares_until_its_end() -> None:
    door = Door()
    with facts.shared():
        known = facts.current()
        assert known
        assert known.ask("door", lambda: door) is known.ask("door", Door)
        with facts.unshared():
            assert facts.current() is None
        assert facts.current() is known
    assert door.closed.is_set()
    assert facts.current() is None


def test_only_what_is_not_known_is_asked_together() -> None:
    known, asked = Facts(), list[int]()

    def ask(keys: list[int]) -> dict[int, int]:
        asked.extend(keys)
        return {key: -key for key in keys}

    with known.read():
        known.ask_together([1, 2], ask)
        known.ask_together([2, 3], ask)
        assert [known.ask(key, pytest.fail) for key in (1, 2, 3)] == [-1, -2, -3]
    assert asked == [1, 2, 3]


def test_a_machine_that_cannot_be_asked_is_the_answer_to_each_question() -> None:
    known, machine = Facts(), Machine(Unavailable("it is down"))
    with known.read():
        known.ask_together([1, 2], lambda _: {1: machine.answer()})
        for key in (1, 2):
            with pytest.raises(Unavailable, match=r"^it is down$"):
                known.ask(key, machine.answer)
    assert machine.asked == 1


def test_where_they_cannot_be_asked_together_each_is_asked_by_itself() -> None:
    known, machine = Facts(), Machine(CommandFailed("sh", 2, "too much"))
    with known.read():
        known.ask_together([1, 2], lambda _: {1: machine.answer()})
        machine.error = None
        assert [known.ask(1, machine.answer), known.ask(2, machine.answer)] == [2, 3]


def test_doubt_is_where_something_is_shared() -> None:
    facts.doubt()
    with facts.shared(), pytest.raises(InDoubt):
        facts.doubt()
