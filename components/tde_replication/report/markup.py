"""HTML and SVG as trees of elements: a text can never become markup, whoever wrote it."""

from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from tde_replication.errors import escaped

Child = Element | str | None
Value = str | float | bool | None


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: Value) -> Element:
    """An element. `class_` and `aria_label` stand for class and aria-label; an attribute that is None or False is left out."""
    made = Element(name)
    for key, value in attributes.items():
        if value is not None and value is not False:
            made.set(key.rstrip("_").replace("_", "-"), _text(value))
    for child in children:
        for one in [child] if child is None or isinstance(child, str | Element) else child:
            _append(made, one)
    return made


def prose(text: str) -> list[Child]:
    """A sentence whose commands stand between backquotes."""
    return [tag("code", part) if number % 2 else part for number, part in enumerate(text.split("`"))]


def page(root: Element) -> str:
    """The whole document. The text of a style element is written as it is."""
    return f"<!doctype html>\n{tostring(root, encoding='unicode', method='html')}\n"


def _append(parent: Element, child: Child) -> None:
    if isinstance(child, Element):
        parent.append(child)
    elif child and len(parent):
        parent[-1].tail = (parent[-1].tail or "") + escaped(child)
    elif child:
        parent.text = (parent.text or "") + (child if parent.tag == "style" else escaped(child))


def _text(value: Value) -> str:
    if value is True:
        return ""
    return escaped(value) if isinstance(value, str) else f"{value:g}"
