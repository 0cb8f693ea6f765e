"""Sections, tables and figures of the page."""

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from tde_replication.report.markup import Child, tag

Cell = Child | Sequence[Child]


def section(title: str, *children: Child) -> Element:
    name = title.lower().replace(",", "").replace(" ", "-")
    return tag("section", tag("h2", title, id=name), *children, aria_labelledby=name)


def table(title: str, names: Sequence[str], found: Iterable[Sequence[Cell]]) -> Element:
    """The first cell of each row is its heading. On a narrow screen each row is a block, and a cell shows its column's name."""
    lines = [
        tag(
            "tr",
            *(
                _cell(name, cell, is_heading=number == 0)
                for number, (name, cell) in enumerate(zip(names, row, strict=True))
            ),
        )
        for row in found
    ]
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    return tag("table", tag("caption", title), tag("thead", head), tag("tbody", *lines))


def _cell(name: str, content: Cell, *, is_heading: bool) -> Element:
    parts = content if isinstance(content, Sequence) and not isinstance(content, str) else [content]
    inner = tag("span", *parts, class_="cell")
    return tag("th", inner, scope="row") if is_heading else tag("td", inner, data_name=name)


def figure(name: str, value: str, more: str) -> Element:
    return tag("div", tag("dt", name), tag("dd", value, class_="value"), tag("dd", more))
