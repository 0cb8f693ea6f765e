"""Which plan was reviewed: a digest of what it does, which a comment carries and `make up` is given."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict

from tde_replication.review.findings import Review

STACK = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LINE = re.compile(r"<!-- tde-replication plans: (\{[^\n]*\}) -->")


def digest(review: Review) -> str:
    """Of what is planned, value by value, and what servers go through. Empty where the preview did not come to its end.

    The same as long as `up` would do the same. What changes by itself is left out: sizes, times, what could not be asked, and
    whether a policy holds now. Of a secret, only that it changes is known.
    """
    if not review.complete:
        return ""
    does = {
        "stack": review.stack,
        "servers": sorted({(one.server, one.kind) for one in review.effects if one.kind != "refused"}),
        "losses": sorted(review.losses),
        "values": sorted(json.dumps(asdict(one), sort_keys=True) for one in review.diff),
    }
    return hashlib.sha256(json.dumps(does).encode()).hexdigest()[:40]


def objection(reviewed: str, found: Review | None) -> str:
    """Why a plan is not the one with the digest `reviewed`; empty: it is, or there is nothing to do."""
    plan = digest(found) if found else ""
    to_do = found is None or found.diff or not found.complete
    if not to_do or (plan and plan == reviewed):
        return ""
    why = (
        f"its digest is {plan or 'not known'}, and {reviewed} was reviewed" if reviewed else "no reviewed plan is known"
    )
    return f"{why}. Nothing was changed. Review it again"


def header(reviews: Sequence[Review]) -> str:
    """A line of a comment that says of each stack which plan it shows; nobody sees it."""
    plans = {one.stack: found for one in reviews if STACK.fullmatch(one.stack) and (found := digest(one))}
    return f"<!-- tde-replication plans: {json.dumps(plans)} -->\n"


def plan_in(comment: str, stack: str) -> str:
    """The digest that a comment which begins with such a line carries of a stack; empty: none."""
    found = _LINE.match(comment)  # what comes after the first line may have been written by others
    try:
        return str(json.loads(found[1]).get(stack, "")) if found else ""
    except ValueError:
        return ""
