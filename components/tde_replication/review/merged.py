"""python -m tde_replication.review.merged STACK: the digest of the plan that was reviewed before this commit was merged.
python -m tde_replication.review.merged --labels: the labels of what was merged.

Read from the comment of the pull request (GitHub) or merge request (GitLab) that the job's commit comes from. Nothing is written
where no plan of the stack was reviewed: `make up REVIEWED=` then refuses. A label of several words is left out.
"""

import os
import sys

from tde_replication.errors import UserError
from tde_replication.review.forge import forge
from tde_replication.review.reviewed import plan_in


def main(arguments: list[str]) -> int:
    [what] = arguments
    asked = forge(os.environ, "merged")
    if what == "--labels":
        found = " ".join(label for label in asked.labels() if len(label.split()) == 1 and label.isprintable())
    else:
        found = plan_in(asked.commented(), what)
    sys.stdout.write(found + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
