"""The servers as a picture, in SVG: who takes writes, and who receives changes from whom."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from tde_replication.report.markup import tag
from tde_replication.status.finding import Level, Verdict
from tde_replication.status.model import Server, Snapshot
from tde_replication.status.topology import Link, links, tree
from tde_replication.status.words import size

WIDTH, HEIGHT, GAP, INDENT = 304, 88, 22, 44
"""Of a box, between two, and of each step to the right; in the units of the picture."""
LONGEST = 38
"""Characters of a line in a box."""
MARKS = {
    Level.WELL: "M-4.5 0.5 L-1.5 3.5 L4.5 -3",
    Level.DEGRADED: "M0 -4.5 V1 M0 4 V4.2",
    Level.BROKEN: "M-3.5 -3.5 L3.5 3.5 M-3.5 3.5 L3.5 -3.5",
    Level.UNKNOWN: "M-2.6 -2 C-2.6 -5.8 2.8 -5.6 2.8 -2.2 C2.8 0 0 0 0 2 M0 4.4 V4.6",
}
"""The shape says the same as the colour: a tick, an exclamation mark, a cross, a question mark."""


def kind(level: Level) -> str:
    """The class of the stylesheet."""
    return level.name.lower()


def mark(level: Level, scale: float = 1) -> Element:
    """A round sign for a level."""
    drawn = [
        tag("circle", r=9, class_="disc"),
        tag("path", d=MARKS[level], class_="sign"),
    ]
    return tag("g", *drawn, class_=f"mark {kind(level)}", transform=f"scale({scale:g})" if scale != 1 else None)


def icon(sign: Level | Element) -> Element:
    """A sign within text, whose words say the same."""
    drawn = mark(sign) if isinstance(sign, Level) else sign
    return tag("svg", drawn, class_="icon", viewBox="-10 -10 20 20", width=20, height=20, aria_hidden="true")


def levels(snapshot: Snapshot, verdict: Verdict) -> dict[str, Level]:
    """The worst that was found of each server."""
    found = {server.name: Level.WELL for server in snapshot.servers}
    for finding in reversed(verdict.findings):
        if finding.server in found:
            found[finding.server] = finding.level
    return found


def state(server: Server, link: Link | None) -> str:
    """What a server does, in a few words."""
    if server.instance is None:
        return {"unknown": "cannot be asked", "absent": "not there"}.get(server.state, server.state)
    if server.writes:
        return "takes all writes"
    if link:
        return f"follows {link.upstream.name}, {size(link.sender.replay.bytes)} behind"
    receiver = server.instance.receiver
    return "follows another server" if receiver and receiver.status == "streaming" else "receives no changes"


def role(server: Server) -> str:
    """As it is found; of a server that does not answer, as it is declared."""
    return server.instance.role if server.instance else f"declared {server.declared}"


def encrypts(server: Server) -> bool:
    """Whether it has a key and can open it."""
    found = server.encryption
    return bool(found and not found.stand_in and found.keys and not any(key.problem for key in found.keys))


def picture(snapshot: Snapshot, verdict: Verdict) -> Element:
    known = links(snapshot)
    rows = list(enumerate(tree(snapshot, known)))
    judged = levels(snapshot, verdict)
    places = {server.name: (depth * INDENT + 1, row * (HEIGHT + GAP) + 1) for row, (depth, _, server) in rows}
    width = max((x for x, _ in places.values()), default=0) + WIDTH + 1
    height = max((y for _, y in places.values()), default=0) + HEIGHT + 1
    arrows = [_arrow(places[known[name].upstream.name], place) for name, place in places.items() if name in known]
    boxes = [
        _box(server, known.get(server.name), judged[server.name], places[server.name]) for _, (_, _, server) in rows
    ]
    return tag(
        "svg",
        tag("title", "The servers, and who receives changes from whom", id="picture-title"),
        tag("desc", " ".join(_sentences(snapshot, known)), id="picture-text"),
        arrows,
        boxes,
        class_="picture",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_labelledby="picture-title picture-text",
    )


def _sentences(snapshot: Snapshot, known: dict[str, Link]) -> Iterator[str]:
    for server in snapshot.servers:
        yield f"{server.name} ({role(server)}): {state(server, known.get(server.name))}."


def _arrow(upstream: tuple[int, int], standby: tuple[int, int]) -> Element:
    """Down from the upstream's box, and to the right into the standby's."""
    start, end = upstream[0] + INDENT // 2, (standby[0], standby[1] + HEIGHT // 2)
    line = f"M{start} {upstream[1] + HEIGHT} V{end[1] - 8} Q{start} {end[1]} {start + 8} {end[1]} H{end[0] - 3}"
    head = f"M{end[0] - 8} {end[1] - 5} L{end[0] - 2} {end[1]} L{end[0] - 8} {end[1] + 5}"
    return tag("path", d=f"{line} {head}", class_="arrow")


def _box(server: Server, link: Link | None, level: Level, place: tuple[int, int]) -> Element:
    answers = server.instance is not None
    lines = [
        tag("rect", width=WIDTH, height=HEIGHT, rx=8, class_="box" if answers else "box silent"),
        tag("path", d=f"M8 0 H5 Q0 0 0 8 V{HEIGHT - 8} Q0 {HEIGHT} 5 {HEIGHT} H8 Z", class_=f"edge {kind(level)}"),
        tag("text", _cut(server.name, 20), x=22, y=29, class_="name"),
        tag("text", role(server), x=WIDTH - 16, y=29, class_="role", text_anchor="end"),
        tag("text", _cut(server.address), x=22, y=50, class_="address"),
        tag("g", mark(level, 0.8), transform=f"translate(30 {HEIGHT - 20})"),
        tag("text", _cut(state(server, link), 32), x=44, y=HEIGHT - 16, class_="state"),
    ]
    if answers:
        lines.append(tag("g", lock(is_open=not encrypts(server)), transform=f"translate({WIDTH - 26} {HEIGHT - 20})"))
    return tag("g", *lines, transform=f"translate({place[0]} {place[1]})")


def lock(*, is_open: bool) -> Element:
    ring = "M-4 -1 V-4.5 A4 4 0 0 1 4 -4.5 V-1" if not is_open else "M3 -1 V-4.5 A4 4 0 0 1 11 -4.5 V-3"
    body = tag("rect", x=-6, y=-1.5, width=12, height=9, rx=1.5, class_="lock-body")
    return tag("g", tag("path", d=ring, class_="lock-ring"), body, class_="lock open" if is_open else "lock")


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
