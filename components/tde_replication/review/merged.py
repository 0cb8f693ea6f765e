"""python -m tde_replication.review.merged STACK: the digest of the plan that was reviewed before this commit was merged.

Read from the comment of the pull request (GitHub) or merge request (GitLab) that the job's commit comes from. Nothing is written
where no plan of the stack was reviewed: `make up REVIEWED=` then refuses.
"""

import os
import sys

from tde_replication.errors import UserError
from tde_replication.review.forge import forge
from tde_replication.review.reviewed import plan_in


def main(arguments: list[str]) -> int:
    [stack] = arguments
    sys.stdout.write(plan_in(forge(os.environ, "merged").commented(), stack) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
