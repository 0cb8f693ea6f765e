"""What a preview finds out and no diff shows, as data: a line of JSON behind a mark, among the engine's debug messages.

Pulumi writes those into its event stream (``--event-log``, and ``preview --json`` with PULUMI_ENABLE_STREAMING_JSON_PREVIEW) and
shows them to nobody: a person is told the sentence, `review` reads the record.
"""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from tde_replication.errors import escaped

MARK = "tde-replication record: "


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A side effect of a change to one resource."""

    kind: Literal[
        "restart", "reload", "clone", "rewind", "rotation", "switchover", "promotion", "follow", "rewrite", "by hand"
    ]
    """"switchover": of the former primary; "promotion": of the next one; "follow": of a standby that streams from another
    server. "rewrite": of tables, which are locked for as long. "by hand": a person has to do what the change needs."""
    server: str = ""
    """Its name; empty where the resource knows only the place."""
    host: str = ""
    data_directory: str = ""
    """Where that server is, and no other one of any cluster. Where the resource says nothing, the adapter knows it."""
    text: str = ""
    """The sentence for a person; empty where the diff says enough."""
    size: int | None = None
    """Bytes to be copied, or rewritten."""
    free: int | None = None
    """Bytes that are free at the target; None where that is unknown, or where room is made."""
    seconds: float | None = None
    """How long it takes, and writes wait in a switchover; None where that is unknown."""
    loses: str = ""
    """Data that is lost by it; empty: none."""
    of: str = ""
    """The Pulumi type of the resource, without its module. The adapter knows it."""


@dataclass(frozen=True, kw_only=True)
class Unasked:
    """A question that got no answer."""

    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What a refresh has seen that changes by itself, and so is in no resource. Policies are judged by it."""

    kind: Literal["key since", "pg_tde", "free"]
    of: str
    """The principal key; or the server."""
    host: str = ""
    data_directory: str = ""
    """As those of a cost."""
    text: str = ""
    """When Vault got the key (ISO 8601); what pg_tde says of its version."""
    number: int | None = None
    """server_version_num of PostgreSQL, beside pg_tde's version; bytes that are free where WAL lies; key.rotateAfter
    in seconds."""


Record = Cost | Unasked | Fact

_KINDS: dict[str, type[Cost] | type[Unasked] | type[Fact]] = {"cost": Cost, "unasked": Unasked, "fact": Fact}

FACTS = "TDE_REPLICATION_FACTS"
"""An environment variable: where it is set, a refresh asks for facts, too. Only policies want them."""


def written(record: Record) -> str:
    """As a message of the engine."""
    name = next(name for name, kind in _KINDS.items() if isinstance(record, kind))
    values = {key: escaped(value) if isinstance(value, str) else value for key, value in asdict(record).items()}
    return MARK + json.dumps({name: values})


def read(message: str) -> Record | None:
    """The record in a message of the engine; None where it holds none."""
    _, mark, text = message.partition(MARK)
    try:
        [(name, values)] = json.loads(text).items() if mark else []
        return _KINDS[name](**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def roughly(seconds: float) -> str:
    """How long something takes, as it is expected: in seconds, or in minutes."""
    if round(seconds) < 60:  # noqa: PLR2004 - a minute
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
