"""How long work tells where it is, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


def progress(text: str) -> None:
    """Say how far the work at hand has come; shown live, and not kept."""
    if listener := _listener.get():
        listener(text)


@contextmanager
def reported_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Have the progress of the work inside told to `listener`, each text once until another comes."""
    last: list[str] = []

    def tell(text: str) -> None:
        if last != [text]:
            last[:] = [text]
            listener(text)

    token = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(token)
