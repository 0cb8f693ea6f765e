"""What a preview means: who is interrupted, what is lost, what drifted, what the stack file changes, what is not known."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from tde_replication.records import Cost
from tde_replication.review.changes import Change, called, compared, drifted
from tde_replication.review.policies import Environment, Finding, Plan, judged
from tde_replication.review.preview import UNKNOWN, Inputs, Preview, Step
from tde_replication.review.values import flat
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
    """restart, reload, clone, rotation, switchover, rewrite, by hand; start, stop, move; refused."""
    text: str


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
    complete: bool = True
    """Whether the preview came to its end."""
    asked_all: bool = True
    """Whether every question of it got an answer."""
    losses: list[str] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    drift: list[Change] = field(default_factory=list)
    declared: list[Change] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    policies: list[Finding] = field(default_factory=list)
    """What violates a policy."""
    passed: list[str] = field(default_factory=list)
    """The names of policies that hold."""
    notes: list[str] = field(default_factory=list)
    diff: list[Altered] = field(default_factory=list)


def review(
    preview: Preview,
    environment: Environment | None = None,
    *,
    labels: Collection[str] = (),
    now: datetime | None = None,
) -> Review:
    """`environment`: by which the policies of costs are judged; none of them without. `labels`: of the pull request."""
    made = Review(preview.stack, complete=preview.complete, asked_all=preview.streamed and not preview.unasked)
    planned = [
        step for step in preview.steps.values() if step.operation != "same" and not step.token.startswith(_FRAMES)
    ]
    servers = _Servers(preview)
    made.effects = list(dict.fromkeys([*_refusals(preview, servers), *_effects(preview, planned, servers)]))
    for step in planned:
        drift, declared, whole = compared(step)
        made.drift += drift
        made.declared += declared
        made.diff.append(Altered(step.operation, called(step), tuple(whole)))
    if not preview.complete:
        made.drift += [change for step in preview.steps.values() if step not in planned for change in drifted(step)]
    made.losses = list(dict.fromkeys(_losses(preview, planned)))
    made.unknown = list(_unknown(preview, planned))
    told = {cost.text for cost in preview.costs} | {one.why for one in preview.unasked}
    made.notes = [
        message.text
        for message in preview.messages
        if message.severity in {"warning", "error" if preview.complete else ""}
        and not any(one and one in message.text for one in told)
    ]
    made.passed = sorted(preview.policies - {one.policy for one in preview.violations})
    made.policies = [Finding(one.policy, one.level != "advisory", one.sentence) for one in preview.violations]
    if environment:
        there = [step for step in preview.steps.values() if step.found is not None]
        keys = [step for step in there if step.type == "PrincipalKey"]
        plan = Plan(
            primaries=servers.primaries,
            effects=made.effects,
            costs=list(_costs(preview, planned, servers)),
            now=now or datetime.now(UTC),
            labels=labels,
            facts=preview.facts,
            keys=[str(step.inputs.get("key")) for step in keys],
            replaced_keys=[str(step.inputs.get("key")) for step in keys if step.operation in {"delete", "replace"}],
            caps={
                servers.of(step): str(step.inputs.get("settings", {}).get("max_slot_wal_keep_size", "-1"))
                for step in there
                if step.type == "Server" and servers.of(step) in servers.primaries
            },
        )
        passed, found = judged(plan, environment)
        made.passed += passed
        made.policies += found
    made.verdict, made.sentence = _verdict(preview, made, servers)
    return made


class _Servers:
    """Which server a resource is of."""

    def __init__(self, preview: Preview) -> None:
        self._by_place: dict[tuple[Any, Any], str] = {}
        self.roles: dict[str, str] = {}
        self.primaries: set[str] = set()
        """Those that are there."""
        for step in preview.steps.values():
            if step.type in {"Server", "DataDirectory"}:
                name = str(step.inputs.get("name", step.name))
                for inputs in (step.declared, step.found, step.recorded):
                    if inputs:
                        self._by_place.setdefault(_place(inputs), name)
                if step.type == "Server":
                    now = step.found or step.recorded or step.inputs
                    self.roles[name] = "primary" if now.get("recovery") == "none" else "standby"
                    if step.recorded and self.roles[name] == "primary":
                        self.primaries.add(name)

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
    for cost in _costs(preview, planned, servers):
        yield Effect(cost.server, cost.kind, _cost(cost))
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


def _costs(preview: Preview, planned: list[Step], servers: _Servers) -> Iterator[Cost]:
    """Those of what is planned, each with its server."""
    for cost in preview.costs:
        where = [servers.of(step) for step in planned if not cost.of or step.type == cost.of]
        # One resource says who is the primary, and is of no server itself.
        if where and (not cost.server or cost.server in where or cost.of == "Topology"):
            yield replace(cost, server=cost.server or where[0])


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
            late.setdefault(", ".join(keys), []).append(called(step))
    yield from (f"known during up: {keys} of {', '.join(steps)}" for keys, steps in late.items())


def _verdict(preview: Preview, made: Review, servers: _Servers) -> tuple[Verdict, str]:
    interrupted = _interrupted(made, servers)
    against = list(dict.fromkeys(one.policy for one in made.policies if one.mandatory))
    if any(effect.kind == "refused" for effect in made.effects):
        found = Verdict.REFUSED, "is refused: `up` changes nothing until that is put right"
    elif against:
        found = Verdict.REFUSED, f"is refused by {'policy' if len(against) == 1 else 'policies'} {_listed(against)}"
    elif not preview.complete:
        found = Verdict.REFUSED, "the preview did not come to its end, so what it shows is not all"
    elif made.losses:
        also = f"; interrupts {interrupted}" if interrupted else ""
        found = Verdict.LOSES, f"loses {_listed(made.losses)}{also}"
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
    hit = [one.server for one in made.effects if one.kind in {"restart", "stop", "switchover", "rewrite"}]
    names = sorted(dict.fromkeys(hit), key=lambda name: (servers.roles.get(name) != "primary", hit.index(name)))
    return _listed([servers.described(name) for name in names])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
