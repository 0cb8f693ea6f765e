"""What each server goes through: the costs of what is planned, what its operations mean, and what is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tde_replication.records import Cost
from tde_replication.review.preview import Preview, Step
from tde_replication.review.servers import CLUSTER, Servers
from tde_replication.status.words import size

INTERRUPTIONS = {"restart", "stop", "rewind", "switchover", "rewrite"}
_WITHOUT_WORD = {"restart", "stop", "start", "clone", "rewind", "switchover", "promotion", "follow"}
"""A server that goes through one of these is not told that it reloads, too."""
_SAID = {"reload": "reloads its configuration; nobody is disconnected", "rotation": "rotates its principal key"}
"""Of costs without a text."""
_AFTER = {"restart": "; its clients are disconnected, and can connect again once it has started"}
"""What a DBA would know, and a reviewer may not."""


@dataclass(frozen=True)
class Effect:
    """What one server goes through."""

    server: str
    kind: str
    """restart, reload, clone, rewind, rotation, switchover, promotion, follow, rewrite, by hand; start, stop; refused."""
    text: str
    size: int | None = None
    """Bytes to be copied, or rewritten."""
    seconds: float | None = None
    """How long it takes; None where that is unknown."""


def effects(preview: Preview, planned: Sequence[Step], costs: Sequence[Cost], servers: Servers) -> list[Effect]:
    found = list(dict.fromkeys([*_refusals(preview, servers), *map(_of_cost, costs), *_of_steps(planned, servers)]))
    busy = {one.server for one in found if one.kind in _WITHOUT_WORD}
    return [one for one in found if one.kind != "reload" or one.server not in busy]


def _refusals(preview: Preview, servers: Servers) -> Iterator[Effect]:
    for message in [] if preview.complete else preview.messages:
        if message.severity == "error" and message.text not in {"preview failed", "update failed"}:
            step = preview.steps.get(message.urn)
            yield Effect(servers.of(step) if step else CLUSTER, "refused", message.text)


def _of_steps(planned: Sequence[Step], servers: Servers) -> Iterator[Effect]:
    for step in planned:
        server = servers.of(step)
        match step.type, step.operation:
            case "Server", "create":
                yield Effect(server, "start", "is started" if step.recorded else "is new")
            case "Server", "replace" if step.found and step.found.get("running") is False:
                yield Effect(server, "start", "is started on its new data directory; it does not run now")
            case "Server", "replace":
                yield Effect(
                    server,
                    "stop",
                    "is stopped, and started again on its new data directory; until then nobody can connect",
                )
            case "Server", "delete":
                yield Effect(server, "stop", "is stopped and taken away")
            case "Container", "replace":
                yield Effect(server, "stop", "its container is replaced: it is stopped and started")
            case "DataDirectory", "delete":
                yield Effect(server, "stop", _fate(step))


def _of_cost(cost: Cost) -> Effect:
    name = cost.server.rpartition("/")[2]
    words = cost.text.removeprefix(f"{name}: ").removeprefix(f"server {name} ") or _SAID.get(cost.kind, cost.kind)
    if cost.size is not None and cost.free is not None:
        fits = "it fits" if cost.free >= cost.size else "it does not fit"
        words += f" ({size(cost.free)} are free: {fits})"
    return Effect(cost.server, cost.kind, words + _AFTER.get(cost.kind, ""), cost.size, cost.seconds)


def _fate(step: Step) -> str:
    directory = step.inputs.get("dataDirectory", "its data directory")
    return f"{directory} is {'removed' if step.inputs.get('disposable') else 'set aside'}"
