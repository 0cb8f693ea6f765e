"""python -m tests.report.pictures: the pictures of the HTML page in docs/pictures.

Three are of clusters that were really there: `make status ARGS=--json` wrote their status documents in `clusters`, of a healthy
cluster of these tests, of the same with db3 stopped, and with the primary stopped. Those tests encrypt nothing, so the others are
of an example, which is made up.
"""

from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Page

from tde_replication.report.page import report
from tde_replication.review import Review
from tde_replication.review.changes import Change
from tde_replication.status.model import OnDisk, Server, Snapshot
from tde_replication.status.verdict import judge
from tests.report.browser import browser
from tests.report.png import with_fewer_colours
from tests.unit.clusters import TIME, encryption, healthy

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parents[1] / "docs" / "pictures"
NAMES = ("healthy", "degraded", "broken")
WIDTH, PHONE = 960, 390
PROTECTION, SOFTWARE = "what-is-protected-and-what-is-not", "software"
"""Sections at which the pictures of the example begin and end."""
DRIFT = Change("ReplicationRole replicator", "connectionLimit", "0", "-1")


def recorded(name: str) -> Snapshot:
    return Snapshot.model_validate_json((HERE / "clusters" / f"{name}.json").read_text())


def example() -> Snapshot:
    """One that is encrypted, with all that a report can say of it."""

    def whole(server: Server) -> Server:
        made = TIME - timedelta(days=12)
        keys = tuple(one.model_copy(update={"made": made}) for one in encryption().keys)
        read = OnDisk(pages=9, tables=3, wal="encrypted")
        return server.model_copy(update={"encryption": encryption(keys=keys), "on_disk": read})

    snapshot = healthy()
    servers = tuple(map(whole, snapshot.servers))
    databases = tuple(one.model_copy(update={"catalog_bytes": 12 * 2**20}) for one in snapshot.databases)
    changed = {"stack": "example", "servers": servers, "databases": databases, "rotate_after": "365d"}
    return snapshot.model_copy(update=changed)


def shown(opened: Browser, snapshot: Snapshot, review: Review | None = None, *, width: int = WIDTH) -> Page:
    page = opened.new_page(viewport={"width": width, "height": 800}, color_scheme="light")
    page.set_content(report(snapshot, judge(snapshot), review))
    return page


def between(page: Page, first: str | None, last: str | None) -> FloatRect:
    """From one section of the page to another; from its beginning, and to its end, where none is named."""

    def top(heading: str) -> float:
        return float(page.evaluate("name => document.getElementById(name).parentElement.offsetTop", heading))

    start = top(first) - 20 if first else 0.0
    end = top(last) if last else float(page.evaluate("document.documentElement.scrollHeight"))
    return {
        "x": 0,
        "y": start,
        "width": page.viewport_size["width"] if page.viewport_size else 0,
        "height": end - start,
    }


def main() -> None:
    with browser() as opened:
        for name in NAMES:
            write(name, shown(opened, recorded(name)).screenshot(full_page=True))
        page = shown(opened, example(), Review("example", drift=[DRIFT]))
        for name, parts in {"example": (None, PROTECTION), "example-protection": (PROTECTION, SOFTWARE)}.items():
            write(name, page.screenshot(full_page=True, clip=between(page, *parts)))
        page = shown(opened, example(), Review("example", drift=[DRIFT]), width=PHONE)
        write("phone", page.screenshot(full_page=True, clip=between(page, None, PROTECTION)))


def write(name: str, image: bytes) -> None:
    (PICTURES / f"report-{name}.png").write_bytes(with_fewer_colours(image))


if __name__ == "__main__":
    main()
