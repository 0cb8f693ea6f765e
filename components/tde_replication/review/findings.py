"""What a preview means: who is interrupted, what is lost, what drifted, what the stack file changes, what is not known."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from tde_replication.records import Cost
from tde_replication.review.handling import is_handling
from tde_replication.review.preview import UNKNOWN, Inputs, Preview, Step
from tde_replication.review.values import ABSENT, flat, shown
from tde_replication.status.words import size

CLUSTER = "cluster"
"""Stands for what is of no single server."""
NAMED = 4
"""As many are named in a verdict."""
_FRAMES = ("pulumi:", "tde:")
"""What only holds others: the stack, providers, this project's components."""
_SAID = {"reload": "reloads its configuration", "rotation": "rotates its principal key"}
"""Of costs without a text."""


class Verdict(IntEnum):
    """The worse, the higher."""

    NOTHING = 0
    CHANGES = 1
    INTERRUPTS = 2
    LOSES = 3
    REFUSED = 4


@dataclass(frozen=True)
class Effect:
    """What one server goes through."""

    server: str
    kind: str
    """restart, reload, clone, rotation, switchover, by hand; start, stop, move; refused."""
    text: str


@dataclass(frozen=True)
class Change:
    """One value of one resource. As `found` and `declared`, None stands for an absent value."""

    resource: str
    what: str
    found: str | None
    declared: str | None


@dataclass(frozen=True)
class Altered:
    """One resource that the plan changes, with all its values."""

    operation: str
    resource: str
    changes: tuple[Change, ...]


@dataclass
class Review:
    """In the order in which it is shown. Texts are as Pulumi has them: a renderer escapes them."""

    stack: str
    verdict: Verdict = Verdict.NOTHING
    sentence: str = ""
    effects: list[Effect] = field(default_factory=list)
    drift: list[Change] = field(default_factory=list)
    declared: list[Change] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    diff: list[Altered] = field(default_factory=list)


def review(preview: Preview) -> Review:
    made = Review(preview.stack)
    planned = [
        step for step in preview.steps.values() if step.operation != "same" and not step.token.startswith(_FRAMES)
    ]
    servers = _Servers(preview)
    made.effects = [*_refusals(preview, servers), *_effects(preview, planned, servers)]
    for step in planned:
        drift, declared, whole = _compared(step)
        made.drift += drift
        made.declared += declared
        made.diff.append(Altered(step.operation, _called(step), tuple(whole)))
    if not preview.complete:
        made.drift += [change for step in preview.steps.values() if step not in planned for change in _drifted(step)]
    losses = list(dict.fromkeys(_losses(preview, planned)))
    made.unknown = list(_unknown(preview, planned))
    told = {cost.text for cost in preview.costs} | {one.why for one in preview.unasked}
    made.notes = [
        message.text
        for message in preview.messages
        if message.severity in {"warning", "error" if preview.complete else ""}
        and not any(one and one in message.text for one in told)
    ]
    made.verdict, made.sentence = _verdict(preview, made, losses, servers)
    return made


class _Servers:
    """Which server a resource is of."""

    def __init__(self, preview: Preview) -> None:
        self._by_place: dict[tuple[Any, Any], str] = {}
        self.roles: dict[str, str] = {}
        for step in preview.steps.values():
            if step.type in {"Server", "DataDirectory"}:
                name = str(step.inputs.get("name", step.name))
                for inputs in (step.declared, step.found, step.recorded):
                    if inputs:
                        self._by_place.setdefault(_place(inputs), name)
                if step.type == "Server":
                    now = step.found or step.recorded or step.inputs
                    self.roles[name] = "primary" if now.get("recovery") == "none" else "standby"

    def of(self, step: Step) -> str:
        if step.type in {"Server", "DataDirectory"}:
            return str(step.inputs.get("name", step.name))
        return self._by_place.get(_place(step.inputs), CLUSTER)

    def described(self, name: str) -> str:
        return f"{name} ({self.roles[name]})" if name in self.roles else name


def _place(inputs: Inputs) -> tuple[Any, Any]:
    return inputs.get("host"), inputs.get("dataDirectory")


def _refusals(preview: Preview, servers: _Servers) -> Iterator[Effect]:
    for message in [] if preview.complete else preview.messages:
        if message.severity == "error" and message.text not in {"preview failed", "update failed"}:
            step = preview.steps.get(message.urn)
            yield Effect(servers.of(step) if step else CLUSTER, "refused", message.text)


def _effects(preview: Preview, planned: list[Step], servers: _Servers) -> Iterator[Effect]:
    """The costs of what is planned, and what its operations mean."""
    for cost in preview.costs:
        where = [servers.of(step) for step in planned if not cost.of or step.type == cost.of]
        # One resource says who is the primary, and is of no server itself.
        if where and (not cost.server or cost.server in where or cost.of == "Topology"):
            yield Effect(cost.server or where[0], cost.kind, _cost(cost))
    for step in planned:
        server = servers.of(step)
        match step.type, step.operation:
            case "Server", "create":
                yield Effect(server, "start", "is started" if step.recorded else "is new")
            case "Server", "replace":
                yield Effect(server, "stop", "is stopped and started again on its new data directory")
            case "Server", "delete":
                yield Effect(server, "stop", "is stopped and taken away")
            case "Container", "replace":
                yield Effect(step.name, "stop", "its container is replaced: it is stopped and started")
            case "DataDirectory", "delete":
                yield Effect(server, "stop", _fate(step))


def _cost(cost: Cost) -> str:
    words = cost.text.removeprefix(f"{cost.server}: ") or _SAID.get(cost.kind, cost.kind)
    if cost.size is not None and cost.free is not None:
        fits = "it fits" if cost.free >= cost.size else "it does not fit"
        words += f" ({size(cost.free)} are free: {fits})"
    if cost.seconds is not None:
        words += f" (about {cost.seconds:g} s)"
    return words


def _fate(step: Step) -> str:
    directory = step.inputs.get("dataDirectory", "its data directory")
    return f"{directory} is {'removed' if step.inputs.get('disposable') else 'set aside'}"


def _losses(preview: Preview, planned: list[Step]) -> Iterator[str]:
    yield from (cost.loses for cost in preview.costs if cost.loses and any(cost.of == step.type for step in planned))
    for step in planned:
        match step.token, step.operation:
            case "vault:index/mount:Mount", "delete" | "replace":
                yield f"the Vault mount {step.name} with every key in it"
            case "docker:index/volume:Volume", "delete" | "replace":
                yield f"the volume {step.name} with the data in it"
            case _, "delete" if step.type == "DataDirectory" and step.inputs.get("disposable"):
                yield f"the data in {step.inputs.get('dataDirectory')}"


def _compared(step: Step) -> tuple[list[Change], list[Change], list[Change]]:
    """Drift, what the stack file changes, and all."""
    name = _called(step)
    if step.operation == "create" and step.recorded is not None:
        return [Change(name, "", "gone", "made again")], [], _new(step)
    if step.operation in {"create", "import"}:
        return [], [Change(name, "", None, "new")], _new(step)
    if step.operation == "delete":
        return [], [Change(name, "", "there", "taken away")], []
    recorded, found, declared = (flat(one or {}) for one in (step.recorded, step.found, step.declared))
    drift, changed, whole = [], [], []
    for key in dict.fromkeys([*declared, *found]):
        was, live, wanted = (one.get(key, ABSENT) for one in (recorded, found, declared))
        if live == wanted:
            continue
        change = Change(name, key, shown(live), shown(wanted))
        whole.append(change)
        if is_handling(step.type, key):
            continue  # it is in the full diff
        if step.recorded is not None and was != live:
            drift.append(change)
        if wanted not in (UNKNOWN, was):
            changed.append(Change(name, key, shown(was), shown(wanted)))
    return drift, changed, whole


def _drifted(step: Step) -> list[Change]:
    """Of a resource that the preview did not come to."""
    if step.recorded is not None and step.found is None:
        return [Change(_called(step), "", "gone", "not planned yet")]
    recorded, found = flat(step.recorded or {}), flat(step.found or {})
    keys = [key for key in dict.fromkeys([*recorded, *found]) if recorded.get(key, ABSENT) != found.get(key, ABSENT)]
    return [Change(_called(step), key, shown(found.get(key, ABSENT)), shown(recorded.get(key, ABSENT))) for key in keys]


def _new(step: Step) -> list[Change]:
    return [Change(_called(step), key, None, shown(value)) for key, value in flat(step.declared or {}).items()]


def _unknown(preview: Preview, planned: list[Step]) -> Iterator[str]:
    if planned and not preview.streamed:
        yield (
            "what restarts, what is cloned and how large it is: this JSON holds no costs. Set "
            "PULUMI_ENABLE_STREAMING_JSON_PREVIEW=true for the preview"
        )
    by_reason: dict[str, list[str]] = {}
    for one in preview.unasked:
        by_reason.setdefault(one.why, []).append(one.what)
    yield from (f"not asked: {', '.join(what)}: {why}" for why, what in by_reason.items())
    late: dict[str, list[str]] = {}
    for step in planned:
        if keys := [key for key, value in flat(step.declared or {}).items() if value == UNKNOWN]:
            late.setdefault(", ".join(keys), []).append(_called(step))
    yield from (f"known during up: {keys} of {', '.join(steps)}" for keys, steps in late.items())


def _called(step: Step) -> str:
    return f"{step.type} {step.name}"


def _verdict(preview: Preview, made: Review, losses: list[str], servers: _Servers) -> tuple[Verdict, str]:
    interrupted = _interrupted(made, servers)
    if any(effect.kind == "refused" for effect in made.effects):
        found = Verdict.REFUSED, "is refused: `up` changes nothing until that is put right"
    elif not preview.complete:
        found = Verdict.REFUSED, "the preview did not come to its end, so what it shows is not all"
    elif losses:
        also = f"; interrupts {interrupted}" if interrupted else ""
        found = Verdict.LOSES, f"loses {_listed(losses)}{also}"
    elif interrupted:
        found = Verdict.INTERRUPTS, f"interrupts {interrupted}; loses nothing"
    elif not made.diff:
        found = Verdict.NOTHING, "nothing to do"
    elif not preview.streamed:
        found = Verdict.CHANGES, "changes; whether it interrupts is not known"
    else:
        found = Verdict.CHANGES, "changes without interruption"
    return found


def _interrupted(made: Review, servers: _Servers) -> str:
    hit = [one.server for one in made.effects if one.kind in {"restart", "stop", "switchover"}]
    names = sorted(dict.fromkeys(hit), key=lambda name: (servers.roles.get(name) != "primary", hit.index(name)))
    return _listed([servers.described(name) for name in names])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
