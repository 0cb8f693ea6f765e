"""python -m tests.report.pictures: the pictures in docs/pictures.

Three of the HTML page are of clusters that were really there: `make status ARGS=--json` wrote their status documents in
`clusters`, of a healthy cluster of these tests, of the same with db3 stopped, and with the primary stopped. Those tests encrypt
nothing, so the others are of an example, which is made up. One is of the comment on a pull request: the review in docs/review.md.
"""

from datetime import timedelta
from pathlib import Path

from markdown_it import MarkdownIt
from playwright.sync_api import Browser, FloatRect, Page

from tde_replication.report.page import report
from tde_replication.review import Review, as_markdown
from tde_replication.review.changes import Change
from tde_replication.status.model import OnDisk, Server, Snapshot
from tde_replication.status.verdict import judge
from tests.report.browser import browser
from tests.report.png import with_fewer_colours
from tests.unit.clusters import TIME, encryption, healthy
from tests.unit.review_example import orders

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


COMMENT = """\
body { margin: 16px; font: 14px/1.5 "Liberation Sans", Arial, sans-serif; color: #1f2328; background: #fff }
article { max-width: 920px; border: 1px solid #d1d9e0; border-radius: 6px; padding: 16px }
h3 { margin: 0 0 16px; font-size: 18px; font-weight: 600 }
p, ul, table { margin: 0 0 12px }
ul { padding-left: 24px }
table { border-collapse: collapse }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px; text-align: left; vertical-align: top }
th:first-child, td:first-child { white-space: nowrap }
tr:nth-child(2n) { background: #f6f8fa }
i { display: inline-block; width: 14px; height: 14px; border-radius: 7px; background: #f6893c }
code { padding: 2px 5px; border-radius: 6px; background: #818b981f; font: 12px "Liberation Mono", monospace }
"""
"""Much as a forge shows a comment."""


def comment(opened: Browser, review: Review) -> bytes:
    """What a pull request shows."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(as_markdown([review]))
    html = html.replace("🟠", "<i></i>")  # Debian's Chromium alone comes without a font that has it
    page = opened.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
    page.set_content(f"<!doctype html><meta charset=utf-8><style>{COMMENT}</style><article>{html}</article>")
    return page.locator("article").screenshot()


def main() -> None:
    with browser() as opened:
        for name in NAMES:
            write(f"report-{name}", shown(opened, recorded(name)).screenshot(full_page=True))
        page = shown(opened, example(), Review("example", drift=[DRIFT]))
        for name, parts in {"example": (None, PROTECTION), "example-protection": (PROTECTION, SOFTWARE)}.items():
            write(f"report-{name}", page.screenshot(full_page=True, clip=between(page, *parts)))
        page = shown(opened, example(), Review("example", drift=[DRIFT]), width=PHONE)
        write("report-phone", page.screenshot(full_page=True, clip=between(page, None, PROTECTION)))
        write("review", comment(opened, orders()))


def write(name: str, image: bytes) -> None:
    (PICTURES / f"{name}.png").write_bytes(with_fewer_colours(image))


if __name__ == "__main__":
    main()
