"""One issue for each stack that has drifted: opened, edited while it lasts, and closed once nothing differs any more."""

from collections.abc import Iterator, Sequence

from tde_replication.review.findings import Review
from tde_replication.review.forge import Forge
from tde_replication.review.markdown import LIMIT, as_markdown
from tde_replication.review.reviewed import STACK


def settle(reviews: Sequence[Review], forge: Forge) -> Iterator[str]:
    """What was done for each stack, a line each. Where not everything could be asked, an issue stays as it is: that nothing was
    found does not say that nothing has drifted. Raises `UserError` where the forge does not answer as it should."""
    for review in reviews:
        if not STACK.fullmatch(review.stack):
            yield "a preview names no stack: left as it is"
            continue
        mark = f"<!-- tde-replication drift: {review.stack} -->"
        title = f"Drift of stack {review.stack}"
        if review.drift:
            text = as_markdown([review], limit=LIMIT - len(mark) - 1)
            yield f"{review.stack}: {len(review.drift)} values have drifted: {forge.issue(mark, title, text)}"
        elif review.complete and review.asked_all:
            yield f"{review.stack}: no drift: {forge.issue(mark, title, None)}"
        else:
            yield f"{review.stack}: not everything could be asked: left as it is"
