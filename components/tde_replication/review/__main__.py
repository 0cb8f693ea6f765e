"""python -m tde_replication.review [--format text|markdown|json] [--policies FILE] [--comment|--issue] [FILE…]

A file is the JSON of a stack's preview, named NAME.json or preview-NAME.json after its stack. Ends with 1 where a policy refuses
what one of them plans, or one cannot be read.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tde_replication.errors import UserError
from tde_replication.review import Preview, as_json, as_markdown, as_text, environment, read, review
from tde_replication.review.forge import MARK, forge
from tde_replication.review.issues import settle
from tde_replication.review.markdown import LIMIT
from tde_replication.review.reviewed import header

FORMATS = {"text": as_text, "markdown": as_markdown, "json": as_json}


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tde_replication.review", description="What does this preview mean?"
    )
    parser.add_argument("--format", choices=FORMATS, default="text")
    help_of_comment = "as a comment of this job's pull request (GitHub) or merge request (GitLab), too"
    parser.add_argument("--comment", action="store_true", help=help_of_comment)
    help_of_issue = "have one open issue for each stack that has drifted, and none for the others"
    parser.add_argument("--issue", action="store_true", help=help_of_issue)
    help_of_policies = "the environment by whose policies the costs are judged, such as policies/production.json"
    parser.add_argument("--policies", type=Path, help=help_of_policies)
    parser.add_argument("--label", action="append", default=[], help="a label of the pull request; may be repeated")
    parser.add_argument(
        "file", nargs="*", type=Path, help="the JSON of one stack's preview; without any: standard input"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    given = options(arguments)
    by = environment(given.policies) if given.policies else None
    previews = [_read(file) for file in given.file] or [read(sys.stdin.read(), "standard input")]
    reviews = [review(preview, by, labels=given.label) for preview in previews]
    sys.stdout.write(FORMATS[given.format](reviews).rstrip("\n") + "\n")
    if given.comment:
        plans = header(reviews)
        forge(os.environ).comment(plans + as_markdown(reviews, limit=LIMIT - len(MARK) - 1 - len(plans)))
    if given.issue:
        sys.stderr.writelines(f"{line}\n" for line in settle(reviews, forge(os.environ, "none")))
    refused = any(finding.mandatory for one in reviews for finding in one.policies)
    return int(refused or not all(preview.steps or preview.messages for preview in previews))


def _read(file: Path) -> Preview:
    """Of a preview that wrote nothing, that it did not: the other stacks are shown beside it."""
    try:
        return read(file.read_text(errors="replace"), file.name)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return Preview(file.stem.removeprefix("preview-"), streamed=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
