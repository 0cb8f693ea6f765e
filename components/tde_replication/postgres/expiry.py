"""When a test cluster may be destroyed, written into the stack's state as the first of all, and deleted as the last."""

from datetime import UTC, datetime
from typing import ClassVar, Self

from tde_replication.reconciler import Resource
from tde_replication.values import length


def minute(time: datetime) -> str:
    """A time for people, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


class Expiry(Resource):
    """Counted from its creation: by the last `up`, an untouched cluster would never preview as unchanged, and one that is updated
    every night would never go. Times are ISO 8601, in UTC."""

    after: str
    """The duration, as the stack file has it."""
    made_at: str = ""
    expires_at: str = ""

    computed: ClassVar[frozenset[str]] = frozenset({"made_at", "expires_at"})

    @property
    def identity(self) -> str:
        return "expiry"

    def read(self) -> Self:
        return self

    def create(self) -> Self:
        return self._from(datetime.now(UTC).replace(microsecond=0))

    def update(self, live: Self) -> Self:
        return self._from(datetime.fromisoformat(live.made_at))

    def _from(self, made: datetime) -> Self:
        return self.replace(made_at=made.isoformat(), expires_at=(made + length(self.after)).isoformat())

    def delete(self) -> None:
        """There is nothing behind it."""
