"""What could not be asked, and why: a check that could not be made has not passed.

Whoever could not ask says so here. A preview then names all of it at once above its plan, and a drift check ends with an exit
status of its own.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tde_replication.errors import AnotherCluster, NoDatabase, NoExtension, NotMadeYet, UserError

if TYPE_CHECKING:
    from tde_replication.hosts.base import Host

FILE = "TDE_REPLICATION_UNASKED"
"""An environment variable with the path of a file. Each question that got no answer appends a line: what, a tab, why."""

_listener: ContextVar[Callable[[str, str], object] | None] = ContextVar("listener", default=None)


def could_not_ask(what: str, why: UserError | OSError) -> None:
    """Note that `what` is not known now. Another cluster, or no such database or extension, is an answer."""
    if isinstance(why, AnotherCluster | NoDatabase | NoExtension):
        return
    if isinstance(why, NotMadeYet):
        what = f"all on {why.machine}"
    line = what, " ".join(str(why).rstrip(".").split())
    if listener := _listener.get():
        listener(*line)
    if path := os.environ.get(FILE):
        with Path(path).open("a") as file:
            file.write("\t".join(line) + "\n")  # in one piece: several processes write


def unless_new(host: "Host", data: PurePosixPath, what: str, why: UserError) -> None:
    """Note that a server could not be asked, but for one that is not there yet."""
    with suppress(UserError):
        if not host.listing(data):
            return
    could_not_ask(what, why)


@contextmanager
def passed_to(listener: Callable[[str, str], object]) -> Iterator[None]:
    """Have each question that the work inside could not ask passed on: what, and why."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def told(tell: Callable[[str], object]) -> Iterator[None]:
    """Have all that the work inside could not ask told at its end, however it ends; nothing where there was none."""
    asking: list[tuple[str, str]] = []
    try:
        with passed_to(lambda what, why: asking.append((what, why))):
            yield
    finally:
        if asking:
            tell(f"not everything could be checked, so this plan may miss something:\n{summary(asking)}")


def summary(lines: Sequence[tuple[str, str]]) -> str:
    """A line for each reason, with all that was not asked for it."""
    by_reason: dict[str, dict[str, None]] = {}
    for what, why in lines:
        by_reason.setdefault(why, {})[what] = None
    return "\n".join(f"  {why}. Not checked: {', '.join(what)}" for why, what in by_reason.items())


def read(path: Path) -> list[tuple[str, str]]:
    """The lines of such a file."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [(what, why) for what, tab, why in (line.partition("\t") for line in lines) if tab]
