"""What the reads of one refresh share: answers of machines, and sessions of servers.

Pulumi's engine reads every resource by itself, in four threads at once, and most ask the same of the same few machines. So a
question is asked once, and whoever asks it meanwhile waits for that answer. An error is an answer too.

Only reads share, and for a few seconds: what creates, updates or deletes asks anew. When it begins, everything is forgotten, and
nothing is kept until it has ended.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from tde_replication.errors import Unavailable, UserError

AGE = 5.0
"""Seconds for which an answer is good."""
IDLE = 1.0
"""Seconds without a read after which a refresh is over."""

T = TypeVar("T")
_current: ContextVar["Facts | None"] = ContextVar("facts", default=None)


def current() -> "Facts | None":
    """Those to ask; None where the machine is to be asked itself."""
    known = _current.get()
    return None if known is None or known.changing else known


@contextmanager
def shared() -> Iterator[None]:
    """Share what is asked inside, which changes nothing."""
    known = Facts()
    with known.read():
        try:
            yield
        finally:
            known.forget()


@contextmanager
def unshared() -> Iterator[None]:
    """Ask the machines themselves, whatever is known."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


class InDoubt(Exception):
    """What is shared does not do for this read: it is to be made again, without."""


def doubt() -> None:
    """Raises `InDoubt` where answers are shared: they may be of different moments, and do not change while one waits."""
    if current():
        raise InDoubt


class Lasting(ABC):
    """An answer that is good for as long as it says so, as a session is."""

    @property
    @abstractmethod
    def is_good(self) -> bool: ...

    @abstractmethod
    def close(self) -> None:
        """Nobody gets it any more; whoever has it now may finish."""


class _Fact(Future[Any]):
    settled = 0.0

    @property
    def lasting(self) -> Lasting | None:
        found = self.result() if self.done() and not self.cancelled() and not self.exception() else None
        return found if isinstance(found, Lasting) else None

    @property
    def is_good(self) -> bool:
        if lasting := self.lasting:
            return lasting.is_good
        return not self.done() or time.monotonic() - self.settled < AGE

    def close(self) -> None:
        if lasting := self.lasting:
            lasting.close()


class Facts:
    """What one process knows for now. Its owner says what reads, and what changes something."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Hashable, _Fact] = {}
        self._reads = 0
        self._changes = 0
        self._end: threading.Timer | None = None

    @property
    def changing(self) -> bool:
        return self._changes > 0

    @contextmanager
    def read(self, idle: float = IDLE) -> Iterator[None]:
        """Share what is asked inside, with all that read until nobody has for `idle` seconds."""
        with self._lock:
            self._reads += 1
            if self._end:
                self._end.cancel()
                self._end = None
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._end_of_read(idle)

    def _end_of_read(self, idle: float) -> None:
        with self._lock:
            self._reads -= 1
            if self._reads or not self._known:
                return
            self._end = threading.Timer(idle, self._end_refresh)
            self._end.daemon = True
            self._end.start()

    def _end_refresh(self) -> None:
        with self._lock:
            over = not self._reads
        if over:
            self.forget()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Forget everything, and keep nothing until the end."""
        with self._lock:
            self._changes += 1
        self.forget()
        try:
            yield
        finally:
            with self._lock:
                self._changes -= 1

    def forget(self) -> None:
        with self._lock:
            former, self._known = self._known, {}
        for fact in former.values():
            fact.close()

    def ask(self, key: Hashable, question: Callable[[], T]) -> T:
        """The answer to what `key` stands for; `question` asks it where nobody has."""
        while True:
            mine, facts = self._claim([key])
            if mine:
                self._settle(mine, lambda: {key: question()}, UserError)
            try:
                return cast("T", facts[0].result())
            except CancelledError:
                continue  # whoever asked got no answer, by a fault of ours

    def ask_together(self, keys: Iterable[Hashable], ask: Callable[[list[Any]], Mapping[Any, Any]]) -> None:
        """Have all of these asked at once, but for what is known or being asked.

        That the machine cannot be asked is the answer to each; after any other error, each is asked by itself.
        """
        mine, _ = self._claim(keys)
        if mine:
            self._settle(mine, lambda: ask(list(mine)), Unavailable)

    def _claim(self, keys: Iterable[Hashable]) -> tuple[dict[Hashable, _Fact], list[_Fact]]:
        """Of `keys`, what the caller is to ask; and all of them."""
        mine, found, former = dict[Hashable, _Fact](), list[_Fact](), list[_Fact]()
        with self._lock:
            for key in keys:
                fact = self._known.get(key)
                if fact is None or not fact.is_good:
                    former += [fact] if fact else []
                    fact = mine[key] = _Fact()
                    if not self._changes:
                        self._known[key] = fact
                found.append(fact)
        for one in former:
            one.close()
        return mine, found

    def _settle(
        self, mine: Mapping[Hashable, _Fact], ask: Callable[[], Mapping[Hashable, Any]], answer: type[UserError]
    ) -> None:
        """Ask, and let everybody know; an error of the kind `answer` is one."""
        answers: Mapping[Hashable, Any] = {}
        problem: UserError | None = None
        try:
            answers = ask()
        except answer as error:
            problem = error
        except UserError:
            pass
        finally:
            for key, fact in mine.items():
                fact.settled = time.monotonic()
                if problem:
                    fact.set_exception(problem)
                elif key in answers:
                    fact.set_result(answers[key])
                else:
                    self._let_ask(key, fact)
                if not self._keeps(key, fact):  # something changes
                    fact.close()

    def _keeps(self, key: Hashable, fact: _Fact) -> bool:
        with self._lock:
            return self._known.get(key) is fact

    def _let_ask(self, key: Hashable, fact: _Fact) -> None:
        """Whoever wants to know it asks."""
        with self._lock:
            if self._known.get(key) is fact:
                del self._known[key]
        fact.cancel()
