"""python -m tests.report.pictures: the pictures of the HTML page in docs/pictures, of three clusters that were really there.

Their status documents lie in `clusters`: `make status ARGS=--json` wrote them of a healthy cluster of these tests, of the same
with db3 stopped, and with the primary stopped.
"""

from pathlib import Path

from tde_replication.report.page import report
from tde_replication.status.model import Snapshot
from tde_replication.status.verdict import judge
from tests.report.browser import browser

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parents[1] / "docs" / "pictures"
NAMES = ("healthy", "degraded", "broken")
WIDTH, HEIGHT = 960, 1120
"""Of what is shown: the first screens of the page."""


def recorded(name: str) -> Snapshot:
    return Snapshot.model_validate_json((HERE / "clusters" / f"{name}.json").read_text())


def main() -> None:
    with browser() as opened:
        for name in NAMES:
            snapshot = recorded(name)
            page = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.set_content(report(snapshot, judge(snapshot)))
            page.screenshot(path=PICTURES / f"report-{name}.png")


if __name__ == "__main__":
    main()
