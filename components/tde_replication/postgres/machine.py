"""A machine that the same program makes: what is to lie on it waits until it can be asked."""

import time
from typing import Self

from tde_replication import hosts
from tde_replication.errors import AccessDenied, Unavailable
from tde_replication.progress import progress
from tde_replication.reconciler import Resource
from tde_replication.waiting import until

BOOT_SECONDS = 600.0
"""For a machine that does not answer yet."""
FIRST_BOOT_SECONDS = 120.0
"""For one that answers and lets nobody in: its first boot makes the accounts and puts their keys there."""
LONGEST_PAUSE = 3.0


class Machine(Resource):
    """Made once somebody can log in. What becomes of the machine then is for others to say: it never drifts."""

    host: str

    @property
    def identity(self) -> str:
        return self.host.partition("?")[0]

    def read(self) -> Self:
        return self

    def create(self) -> Self:
        host, began = hosts.host(self.host), time.monotonic()
        next_try, pause = began, 0.1
        told: Unavailable | AccessDenied | None = None

        def lets_in() -> bool:
            nonlocal next_try, pause, told
            if time.monotonic() < next_try:
                return False
            try:
                host.expect_login()
            except (Unavailable, AccessDenied) as why:
                told = why
                limit = FIRST_BOOT_SECONDS if isinstance(why, AccessDenied) else BOOT_SECONDS
                if time.monotonic() - began > limit:
                    raise
                progress(f"waiting for a login: {why}")
                pause = min(pause * 1.5, LONGEST_PAUSE)
                next_try = time.monotonic() + pause
                return False
            return True

        if not until(lets_in, seconds=BOOT_SECONDS) and told:
            raise told
        return self

    def update(self, live: Self) -> Self:
        """Another machine, or another way to it."""
        del live
        return self.create()

    def delete(self) -> None:
        """Whoever has made it takes it away."""
