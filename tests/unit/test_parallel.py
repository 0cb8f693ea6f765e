"""`parallel_map`: all are asked at once, in the caller's context, and answers come in order."""

from contextvars import ContextVar
from threading import Barrier

import pytest

from tde_replication.parallel import parallel_map

PATIENCE = 20
stack = ContextVar("stack", default="none")


def test_none_waits_for_another() -> None:
    all_are_asked = Barrier(9)

    def ask(number: int) -> int:
        all_are_asked.wait(PATIENCE)  # breaks where one is asked after the other
        return -number

    assert parallel_map(ask, range(9)) == [0, -1, -2, -3, -4, -5, -6, -7, -8]


def test_each_runs_in_the_context_of_the_caller() -> None:
    token = stack.set("staging")
    try:
        assert parallel_map(lambda _: stack.get(), range(3)) == ["staging"] * 3
    finally:
        stack.reset(token)


def test_the_first_failure_is_told() -> None:
    def ask(number: int) -> None:
        raise ValueError(str(number))

    with pytest.raises(ValueError, match=r"^1$"):
        parallel_map(ask, [1, 2])
