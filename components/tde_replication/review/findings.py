"""What a preview means: who is interrupted, what is lost, what drifted, what the stack file changes, what is not known."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum

from tde_replication.records import Cost, roughly
from tde_replication.review.changes import Change, called, compared, drifted
from tde_replication.review.effects import INTERRUPTIONS, Effect, effects
from tde_replication.review.policies import Environment, Finding, Plan, judged
from tde_replication.review.preview import UNKNOWN, Preview, Step
from tde_replication.review.servers import Servers, costs_of
from tde_replication.review.values import flat

NAMED = 4
"""As many are named in a verdict."""
_FRAMES = ("pulumi:", "tde:")
"""What only holds others: the stack, providers, this project's components."""


class Verdict(IntEnum):
    """The worse, the higher."""

    NOTHING = 0
    CHANGES = 1
    INTERRUPTS = 2
    LOSES = 3
    REFUSED = 4


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
    roles: dict[str, str] = field(default_factory=dict)
    """primary or standby, by server: as it is now."""
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
    servers = Servers(preview)
    costs = list(costs_of(preview, planned, servers))
    made.roles, made.effects = servers.roles, effects(preview, planned, costs, servers)
    for step in planned:
        drift, declared, whole = compared(step)
        made.drift += drift
        made.declared += declared
        made.diff.append(Altered(step.operation, called(step), tuple(whole)))
    if not preview.complete:
        made.drift += [change for step in preview.steps.values() if step not in planned for change in drifted(step)]
    made.drift.sort(key=lambda one: one.resource)  # their order in the events is another each time
    made.losses = list(dict.fromkeys(_losses(planned, costs)))
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
            costs=costs,
            now=now or datetime.now(UTC),
            labels=labels,
            facts=[servers.placed(fact) for fact in preview.facts],
            keys=[servers.key(step) for step in keys],
            replaced_keys=[servers.key(step) for step in keys if step.operation in {"delete", "replace"}],
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


def _losses(planned: list[Step], costs: list[Cost]) -> Iterator[str]:
    yield from (cost.loses for cost in costs if cost.loses)
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


def _verdict(preview: Preview, made: Review, servers: Servers) -> tuple[Verdict, str]:
    interrupted = _interrupted(made, servers)
    against = list(dict.fromkeys(one.policy for one in made.policies if one.mandatory))
    if any(effect.kind == "refused" for effect in made.effects):
        found = Verdict.REFUSED, "is refused: `up` changes nothing until this is corrected"
    elif against:
        found = Verdict.REFUSED, f"is refused by {'policy' if len(against) == 1 else 'policies'} {_listed(against)}"
    elif not preview.complete:
        found = Verdict.REFUSED, "the preview did not finish, so the plan is incomplete"
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


def _interrupted(made: Review, servers: Servers) -> str:
    """Whom, the primary first, and for how long, where that is known."""
    hit = [one for one in made.effects if one.kind in INTERRUPTIONS]
    away = {one.server: one.seconds for one in made.effects if one.kind in {"clone", "restart"} and one.seconds}
    hit.sort(key=lambda one: servers.roles.get(one.server) != "primary")
    told = []
    for one in hit:
        cluster, seconds = servers.cluster_of(one.server), away.get(one.server)
        if one.kind == "switchover" and one.seconds:
            told.append(f"writes{cluster and f' to {cluster}'} for about {roughly(one.seconds)}")
        else:
            told.append(servers.described(one.server, f"for about {roughly(seconds)}" if seconds else ""))
    return _listed(list(dict.fromkeys(told)))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
