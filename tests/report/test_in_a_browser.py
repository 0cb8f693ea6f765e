"""The HTML page in Chromium: accessible, readable in every form, and without a request."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page

from tde_replication.report.page import report
from tde_replication.review import Review
from tde_replication.review.changes import Change
from tde_replication.status.model import Snapshot
from tde_replication.status.verdict import judge
from tests.report.browser import CHROMIUM, browser
from tests.unit.clusters import changed, gone, healthy, server

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium (Debian package) is not installed")

LONG = "a-name-without-any-place-to-break-a-line-in-it-that-goes-on-and-on-and-on.example.net"
DRIFT = Review("orders", drift=[Change("ReplicationRole replicator", "connectionLimit", "0", "-1")])


@dataclass(frozen=True)
class Form:
    width: int
    scheme: Literal["light", "dark"] = "light"
    media: Literal["screen", "print"] = "screen"


FORMS = {
    "light": Form(1100),
    "dark": Form(1100, "dark"),
    "phone": Form(320),
    "dark phone": Form(360, "dark"),
    "paper": Form(720, media="print"),
    "paper, of a dark screen": Form(720, "dark", "print"),
}
CLUSTERS: dict[str, Snapshot] = {
    "healthy": healthy(),
    "broken, with long names": gone("db1").model_copy(
        update={
            "servers": (*gone("db1").servers, server(LONG[:63], state="unknown", problem=LONG, address=f"{LONG}:5432"))
        }
    ),
    "not encrypted": changed("db1", tde_loaded=False, encryption=None, encryption_problem="this server has no pg_tde"),
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page of a cluster in one form; it may ask for no other file, and complains of nothing."""
    snapshot, form = CLUSTERS[request.param[0]], FORMS[request.param[1]]
    file = tmp_path / "report.html"
    file.write_text(report(snapshot, judge(snapshot), DRIFT))
    context = chromium.new_context(
        viewport={"width": form.width, "height": 800}, color_scheme=form.scheme, bypass_csp=False
    )
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("console", lambda one: said.append(one.text))
    page.emulate_media(media=form.media, color_scheme=form.scheme)
    page.goto(file.as_uri())
    yield page
    assert (asked, said) == ([file.as_uri()], [])
    context.close()


ALL = [("healthy", form) for form in FORMS]
ALL += [(cluster, form) for cluster in list(CLUSTERS)[1:] for form in ("light", "phone")]


@pytest.mark.parametrize("opened", ALL, ids=map(str, ALL), indirect=True)
def test_it_is_accessible_and_fits_its_screen(opened: Page) -> None:
    width = opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width == 0, "it scrolls sideways"
    cut = opened.evaluate(
        "[...document.querySelectorAll('section, header, .figures > div, td, th')].filter("
        "one => getComputedStyle(one).display != 'none' && one.scrollWidth > one.clientWidth + 1).map(one => one.textContent)"
    )
    assert cut == [], "text runs out of its box"
    assert violations(opened) == []


def violations(page: Page) -> list[Any]:
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize("opened", [("healthy", "light")], indirect=True)
def test_axe_is_at_work(opened: Page) -> None:
    """And its checks are not kept off by the page's own policy."""
    opened.evaluate("document.documentElement.removeAttribute('lang')")
    assert [name for name, _, _ in violations(opened)] == ["html-has-lang"]


@pytest.mark.parametrize(
    ("opened", "colour"),
    [
        (("healthy", "light"), "rgb(246, 247, 249)"),
        (("healthy", "dark"), "rgb(18, 23, 30)"),
        (("healthy", "paper, of a dark screen"), "rgb(255, 255, 255)"),
    ],
    indirect=["opened"],
)
def test_dark_is_dark_and_paper_is_white(opened: Page, colour: str) -> None:
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == colour


@pytest.mark.parametrize("opened", [("broken, with long names", "light")], indirect=True)
def test_it_prints_on_a_few_sheets(opened: Page) -> None:
    """As the browser's own print does."""
    printed = opened.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert 1 <= printed.count(b"/Type /Page\n") <= 5


@pytest.mark.parametrize("opened", [("healthy", "phone")], indirect=True)
def test_a_row_of_a_table_names_its_columns_on_a_phone(opened: Page) -> None:
    before = "getComputedStyle(document.querySelector('td[data-name=Role]'), '::before').content"
    assert opened.evaluate(before) in {"attr(data-name)", '"Role"'}
    assert opened.evaluate("getComputedStyle(document.querySelector('thead')).display") == "none"
