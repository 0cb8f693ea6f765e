"""Asking several machines at once: each question is round trips, and the machines do not wait for one another."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

AT_ONCE = 16

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def parallel_map(ask: Callable[[Asked], Answer], about: Iterable[Asked]) -> list[Answer]:
    """What `ask` says of each, in their order; raises what it raises, of the first. Each runs in the caller's context."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        asked = [threads.submit(copy_context().run, ask, one) for one in about]
        return [one.result() for one in asked]
