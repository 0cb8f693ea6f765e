"""How long work tells where it is and what it found, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, bool], None]
"""Called with a text, and whether it is kept."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def progress(text: str) -> None:
    """Say how far the work at hand has come; shown live, and not kept."""
    if listener := _listener.get():
        listener(text, False)  # noqa: FBT003


def note(text: str) -> None:
    """Say what a person may want to read afterwards: what was found, where it was put."""
    if listener := _listener.get():
        listener(text, True)  # noqa: FBT003


@contextmanager
def reported_to(listener: Listener) -> Iterator[None]:
    """Have the work inside told to `listener`, each text once until another comes."""
    last: list[str] = []

    def tell(text: str, kept: bool) -> None:  # noqa: FBT001
        if last != [text]:
            last[:] = [text]
            listener(text, kept)

    token = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(token)
