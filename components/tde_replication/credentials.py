"""What the stack's configuration holds for a process of ours alone: in no resource's inputs, and so in no state."""

from collections.abc import Callable
from typing import ClassVar


class _Configuration:
    ask: ClassVar[Callable[[str], str | None]] = staticmethod(lambda _: None)


def configure(ask: Callable[[str], str | None]) -> None:
    """From now on, take values from the configuration by `ask`, which gets a key."""
    _Configuration.ask = staticmethod(ask)


def configured(key: str) -> str | None:
    """The value of a key ("sudoPassword", "vault:token"); None if it is not set."""
    return _Configuration.ask(key) or None
