"""The page: what a reader wants to know first comes first, and every word of the field is explained at the end."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from xml.etree.ElementTree import Element

from tde_replication.report import markup
from tde_replication.report.encryption import keys, protected
from tde_replication.report.layout import figure, section, table
from tde_replication.report.markup import Child, prose, tag
from tde_replication.report.picture import icon, kind, levels, lock, picture, role, state
from tde_replication.report.words import GLOSSARY, LEVELS, SCOPE, WELL_IN_CLEAR
from tde_replication.review import Review
from tde_replication.review.words import in_words
from tde_replication.status.due import Due, day, due
from tde_replication.status.encryption_checks import is_encrypted, not_encrypted
from tde_replication.status.figures import amounts, faults, pg_tde, wal
from tde_replication.status.finding import Level, Verdict
from tde_replication.status.model import Server, Snapshot
from tde_replication.status.topology import links
from tde_replication.status.words import duration, size


def report(snapshot: Snapshot, verdict: Verdict, review: Review | None = None) -> str:
    """One self-contained HTML page. `review` is what a preview of the same stack meant; without it, drift is not known."""
    style = files(__package__).joinpath("page.css").read_text()
    parts = [
        _header(snapshot, verdict),
        tag("main", _figures(snapshot), _findings(snapshot, verdict), _servers(snapshot, verdict), protected(snapshot),
            keys(snapshot), _dates(snapshot), _drift(snapshot, review), _software(snapshot), _glossary()),
        tag("footer", tag("p", SCOPE)),
    ]  # fmt: skip
    return markup.page(tag("html", _head(snapshot, style), tag("body", *parts), lang="en"))


def _head(snapshot: Snapshot, style: str) -> Element:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{snapshot.stack}: encryption and replication"),
        tag("style", style),
    )


def _header(snapshot: Snapshot, verdict: Verdict) -> Element:
    why = not_encrypted(snapshot)
    word, sentence = WELL_IN_CLEAR if why and verdict.level is Level.WELL else LEVELS[verdict.level]
    count = len(verdict.findings)
    see = f" {count} finding{'s' if count > 1 else ''} below." if count else ""
    return tag(
        "header",
        tag("p", "Encryption and replication of a PostgreSQL cluster", class_="kind"),
        tag("h1", snapshot.stack),
        tag("p", f"As of {_moment(snapshot.time)}", class_="time"),
        tag(
            "p", icon(verdict.level), tag("strong", word), f" {sentence}{see}", class_=f"verdict {kind(verdict.level)}"
        ),
        tag("p", icon(Level.BROKEN), tag("strong", "Not encrypted:"), f" {why}.", class_="verdict broken")
        if why
        else None,
    )


def _figures(snapshot: Snapshot) -> Element:
    running = sum(server.instance is not None for server in snapshot.servers)
    count = len(snapshot.servers)
    lags = [link.sender.replay for link in links(snapshot).values()]
    behind = (
        f"{size(max(lag.bytes or 0 for lag in lags))}, {max(lag.seconds or 0.0 for lag in lags):.1f} s behind"
        if lags
        else ""
    )
    standbys = count - max(len(snapshot.writers), 1)
    first = next((one for one in due(snapshot) if one.when), None)
    return tag(
        "dl",
        figure("Encrypted", *_encrypted(snapshot)),
        figure("Servers that answer", f"{running} of {count}", _roles(snapshot)),
        figure("Standbys that follow", f"{len(lags)} of {standbys}", f"at most {behind}" if lags else "none"),
        figure("Next date", day(first.when, short=True), first.what)
        if first and first.when
        else figure("Next date", "—", "no date is known"),
        class_="figures",
    )


def _encrypted(snapshot: Snapshot) -> tuple[str, str]:
    if why := not_encrypted(snapshot):
        return "nothing", why
    found = amounts(snapshot)
    if not found or is_encrypted(snapshot) is None:
        return "not known", "no database could be asked"
    return size(found.encrypted), f"of {size(found.whole)} in tables, {wal(snapshot)}"


def _roles(snapshot: Snapshot) -> str:
    writers = [server.name for server in snapshot.writers]
    told = {0: "none takes writes", 1: f"{''.join(writers)} takes writes"}
    return told.get(len(writers), f"{' and '.join(writers)} take writes")


def _findings(snapshot: Snapshot, verdict: Verdict) -> Element:
    title = "What needs attention"
    items = [
        tag("li", icon(one.level), tag("span", tag("strong", one.server or snapshot.stack), *prose(f": {one.text}")))
        for one in verdict.findings
    ]
    if items:
        return section(title, tag("ul", *items, class_="findings"))
    if not_encrypted(snapshot):
        words = "Nothing is encrypted, as said above. Every check of the servers passed."
        return section(title, tag("p", icon(Level.BROKEN), words, class_="line"))
    return section(title, tag("p", icon(Level.WELL), "Nothing: every check passed.", class_="line"))


def _servers(snapshot: Snapshot, verdict: Verdict) -> Element:
    judged = levels(snapshot, verdict)
    words = [
        tag("p", "An arrow leads from a server to the standby that receives its changes. The primary takes all writes; a standby "
            "holds a copy that can take over."),
        tag("p", icon(lock(is_open=False)), "A closed lock: the server could open its encryption key when this page was made."),
        tag("p", icon(lock(is_open=True)), "An open lock: it could not, or it does not encrypt."),
        tag("p", "A dashed frame without a lock: the server did not answer, so that this is not known."),
    ]  # fmt: skip
    listed = table(
        "Servers",
        ("Server", "Role", "State", "Timeline", "WAL kept for it"),
        [
            (
                [icon(judged[server.name]), tag("span", server.name)],
                role(server),
                _state(server, snapshot),
                str(server.instance.timeline) if server.instance else "—",
                _slot(server, snapshot),
            )
            for server in snapshot.servers
        ],
    )
    return section("Servers", tag("div", picture(snapshot, verdict), tag("div", *words), class_="drawn"), listed)


def _state(server: Server, snapshot: Snapshot) -> str:
    link = links(snapshot).get(server.name)
    kinds = {"sync": "synchronous", "quorum": "synchronous (quorum)"}
    more = f", {kinds.get(link.sender.sync_state, 'asynchronous')}" if link else ""
    replay = server.instance.replay if server.instance else None
    more += ", replay paused" if replay and replay.paused != "not paused" else ""
    more += f", {duration(replay.delay)} late as declared" if replay and replay.delay else ""
    return state(server, link) + more


def _slot(server: Server, snapshot: Snapshot) -> str:
    for other in snapshot.servers:
        for slot in other.instance.slots if other.instance and other.name != server.name else ():
            if slot.name == server.slot:
                left = "no limit" if slot.safe_wal_bytes is None else f"{size(max(slot.safe_wal_bytes, 0))} left"
                return f"{size(slot.held_back_bytes)} on {other.name}, {left}"
    return "—"


def _dates(snapshot: Snapshot) -> Element:
    found = [(_when(one), one.what, prose(one.how)) for one in due(snapshot)]
    if not found:
        return section("What is due, and when", tag("p", "No date is known: nothing here has a key or a token."))
    return section("What is due, and when", table("Dates", ("When", "What", "What to do"), found))


def _when(one: Due) -> str:
    return day(one.when) if one.when else "no date is declared"


def _drift(snapshot: Snapshot, review: Review | None) -> Element:
    title = "Changes by hand"
    if review is None:
        return section(
            title,
            tag("p", "This page was made without asking whether somebody changed the cluster by hand. ",
                tag("code", f"make report STACK={snapshot.stack} DRIFT=1"), " asks that too."),
        )  # fmt: skip
    parts: list[Child] = []
    if not (review.complete and review.asked_all):
        words = "Not everything could be asked, so there may be more than this page shows."
        parts.append(tag("p", icon(Level.UNKNOWN), words, class_="line"))
    if review.drift:
        drift = map(in_words, review.drift)
        found = [(one.resource, one.what or "—", one.found or "—", one.declared or "—") for one in drift]
        names = ("Of", "What", "Found", "After the next update")
        words = "Somebody has changed this without the stack file. The next update sets it back."
        parts += [tag("p", words), table(title, names, found)]
    elif not parts:
        words = "None: everything was found as it was left."
        parts.append(tag("p", icon(Level.WELL), words, class_="line"))
    return section(title, *parts)


def _software(snapshot: Snapshot) -> Element:
    known = [tag("li", tag("strong", ", ".join(names)), f": {fault}") for fault, names in faults(snapshot).items()]
    more = tag("ul", *known) if known else tag("p", "No fault of this pg_tde is known to this project.")
    parts: list[Child] = [table("Software", ("Server", "PostgreSQL", "pg_tde"), map(_versions, snapshot.servers))]
    if any(server.encryption and not server.encryption.stand_in for server in snapshot.servers):
        parts += [tag("h3", "Known faults of pg_tde"), more]
    return section("Software", *parts)


def _versions(server: Server) -> Sequence[str]:
    if not server.instance:
        return server.name, "did not answer", "did not answer"
    none = "not known" if server.instance.tde_loaded else "none"
    return server.name, server.instance.version, pg_tde(server.encryption) if server.encryption else none


def _glossary() -> Element:
    entries = [tag("div", tag("dt", word), tag("dd", meaning)) for word, meaning in GLOSSARY.items()]
    return section("Words", tag("dl", *entries, class_="words"))


def _moment(time: datetime) -> str:
    return f"{day(time)}, {time:%H:%M} UTC"
