"""What a preview means, in a DBA's words: a verdict, what each server goes through, drift apart from declared change.

``python -m tde_replication.review [--format text|markdown|json] [FILE…]`` reads what `pulumi preview --json` wrote for one or
more stacks; `read` and `review` do it for a program.
"""

from tde_replication.review.findings import Review, review
from tde_replication.review.markdown import as_markdown
from tde_replication.review.plain import as_json, as_text
from tde_replication.review.policies import environment
from tde_replication.review.preview import Preview, read
from tde_replication.review.reviewed import digest, objection

__all__ = [
    "Preview",
    "Review",
    "as_json",
    "as_markdown",
    "as_text",
    "digest",
    "environment",
    "objection",
    "read",
    "review",
]
