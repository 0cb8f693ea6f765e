"""How one resource differs: what changed behind Pulumi's back, and what the stack file changes."""

from dataclasses import dataclass

from tde_replication.review.handling import is_handling
from tde_replication.review.preview import UNKNOWN, Step
from tde_replication.review.values import ABSENT, flat, shown


@dataclass(frozen=True)
class Change:
    """One value of one resource. As `found` and `declared`, None stands for an absent value."""

    resource: str
    what: str
    found: str | None
    declared: str | None


def compared(step: Step) -> tuple[list[Change], list[Change], list[Change]]:
    """Drift, what the stack file changes, and all."""
    name = called(step)
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
        if is_handling(step.type, key, step.operation):
            continue  # it is in the full diff
        if step.recorded is not None and was != live:
            drift.append(change)
        if wanted not in (UNKNOWN, was):
            changed.append(Change(name, key, shown(was), shown(wanted)))
    return drift, changed, whole


def drifted(step: Step) -> list[Change]:
    """Of a resource that the preview did not come to."""
    if step.recorded is not None and step.found is None:
        return [Change(called(step), "", "gone", "not planned yet")]
    recorded, found = flat(step.recorded or {}), flat(step.found or {})
    keys = [
        key
        for key in dict.fromkeys([*recorded, *found])
        if recorded.get(key, ABSENT) != found.get(key, ABSENT) and not is_handling(step.type, key, "update")
    ]
    return [Change(called(step), key, shown(found.get(key, ABSENT)), shown(recorded.get(key, ABSENT))) for key in keys]


def _new(step: Step) -> list[Change]:
    return [Change(called(step), key, None, shown(value)) for key, value in flat(step.declared or {}).items()]


def called(step: Step) -> str:
    return f"{step.type} {step.name}"
