"""A review for a terminal, and as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from tde_replication.errors import escaped
from tde_replication.review.changes import Change
from tde_replication.review.effects import Effect
from tde_replication.review.findings import Review
from tde_replication.review.policies import Finding
from tde_replication.review.reviewed import digest
from tde_replication.review.words import in_words

DRIFT = "changed behind Pulumi's back (found → after `up`)"
LINES = 20
"""As many of one kind are shown on a terminal."""
WIDTH = 160
"""A longer value is cut."""


def as_text(reviews: Sequence[Review], *, done: bool = False) -> str:
    """The worst first. `done`: of an `up` that has ended, without what only a plan can be asked for."""
    return "\n\n".join("\n".join(_stack(one, done=done)) for one in worst_first(reviews))


def as_json(reviews: Sequence[Review]) -> str:
    documents = [
        {**asdict(one), "verdict": one.verdict.name.lower(), "plan": digest(one)} for one in worst_first(reviews)
    ]
    return json.dumps(documents, indent=2)


def worst_first(reviews: Sequence[Review]) -> list[Review]:
    return sorted(reviews, key=lambda one: (-one.verdict, one.stack))


def by_server(effects: Sequence[Effect]) -> list[tuple[str, list[Effect]]]:
    """In the order of their first effects."""
    order = list(dict.fromkeys(one.server for one in effects))
    ordered = sorted(effects, key=lambda one: order.index(one.server))
    return [(server, list(of)) for server, of in groupby(ordered, key=lambda one: one.server)]


def gathered(changes: Sequence[Change]) -> list[Change]:
    """What is new or taken away as a whole, as one line of names each."""
    whole = [one for one in changes if not one.what and one.found != "gone"]
    lines = [
        Change(f"{len(names)} {state}", "", None, ", ".join(names))
        for state in dict.fromkeys(one.declared or "" for one in whole)
        if (names := [one.resource for one in whole if one.declared == state])
    ]
    return [one for one in changes if one not in whole] + lines


def policies_told(review: Review) -> str:
    """How many hold and do not; empty where none was tried."""
    refused, warned = ({one.policy for one in review.policies if one.mandatory == which} for which in (True, False))
    counts = [
        (len(review.passed), "passed", "passed"),
        (len(warned), "warning", "warnings"),
        (len(refused), "refuses", "refuse"),
    ]
    return ", ".join(f"{count} {one if count == 1 else more}" for count, one, more in counts if count)


def violation(finding: Finding) -> str:
    return f"{finding.policy} ({'refuses' if finding.mandatory else 'warning'}): {finding.text}"


def _stack(review: Review, *, done: bool) -> Iterator[str]:
    yield _line(f"{review.stack or 'the stack'}: {review.sentence}")
    servers = by_server(review.effects)
    width = max((len(server) for server, _ in servers), default=0)
    for server, effects in servers:
        for effect in effects:
            yield f"  {_line(server):<{width}}  {_indented(effect.text, width + 4)}"
    yield from _section(DRIFT, [_change(in_words(one)) for one in review.drift])
    yield from _section("the stack file changes", [*map(_change, gathered(review.declared))])
    if done:
        return
    yield from _section("not known", review.unknown)
    if told := policies_told(review):
        yield f"policies: {told}"
        yield from (f"  {_indented(violation(one), 4)}" for one in review.policies[:LINES])
    yield from _section("said by the preview", review.notes)
    if review.diff:
        count = len(review.diff)
        yield f"{count} resource{'s' if count > 1 else ''} in all; each value: pulumi preview --diff"


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"{title}:"
        yield from (f"  {_indented(one, 4)}" for one in lines[:LINES])
    if len(lines) > LINES:
        yield f"  … and {len(lines) - LINES} more"


def _change(change: Change) -> str:
    if not change.what:
        arrow = " → " if change.found else ""
        return f"{change.resource}: {change.found or ''}{arrow}{change.declared}"
    found, declared = brief(change.found, change.declared), brief(change.declared, change.found)
    return f"{change.resource}  {change.what}: {found} → {declared}"


def brief(value: str | None, other: str | None = None) -> str:
    """In a line among others. Of a whole text, as that of a Vault policy, the lines that `other` has not; all of it is in the
    full diff."""
    lines = (value or "").splitlines()
    if len(lines) <= 1:
        return cut(value)
    told = f"a text of {len(lines)} lines"
    own = [line.strip() for line in lines if line not in (other or "").splitlines()]
    return f"{told} with {cut('; '.join(own))}" if other and own else told


def cut(value: str | None, width: int = WIDTH) -> str:
    if value is None:
        return "(none)"
    return value if len(value) <= width else f"{value[:width]}…"


def _line(text: str) -> str:
    return escaped(text).replace("\n", "\\n")


def _indented(text: str, depth: int) -> str:
    return escaped(text).replace("\n", "\n" + " " * depth)
