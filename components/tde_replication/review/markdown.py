"""A review as Markdown for a pull request.

What comes from a stack file or a machine is untrusted: it is shown as code, where neither GitHub nor GitLab makes a link, an
image, a mention or HTML of it, unless it is made of plain words alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tde_replication.errors import escaped
from tde_replication.review.changes import Change
from tde_replication.review.effects import Effect
from tde_replication.review.findings import Altered, Review, Verdict
from tde_replication.review.plain import brief, by_server, cut, gathered, policies_told, violation, worst_first
from tde_replication.review.words import in_words

LIMIT = 65_536
"""Characters that GitHub takes as a comment. Bytes are counted here: there are never less of them."""
_WORD = re.compile(r"[(']?(?![0-9a-f]{7})[A-Za-z0-9]+(?:[._/'-][A-Za-z0-9]+)*[)']?[.,;:]?[)']?")
"""A word, number or path that no forge makes anything of; not the abbreviation of a commit."""
_CODE = re.compile(r"`[A-Za-z]+`[.,;:]?|→")
_LINKED = re.compile(r"www\.|GH-|://", re.IGNORECASE)
LONG = 1000
"""A longer sentence is cut."""
_NOTICE = 100
"""Bytes at most of the line that says how many are left out."""
_SIGNS = {"create": "+", "import": "+", "delete": "-", "replace": "±", "update": "~"}
_MARKS = {
    Verdict.NOTHING: "⚪",
    Verdict.CHANGES: "🟢",
    Verdict.INTERRUPTS: "🟠",
    Verdict.LOSES: "🔴",
    Verdict.REFUSED: "⛔",
}


def as_markdown(reviews: Sequence[Review], *, limit: int = LIMIT) -> str:
    """The worst stack first. Never more than `limit` bytes: what matters least is left out, and that is said."""
    ordered = worst_first(reviews)
    alone = len(ordered) == 1
    rows = [] if alone else [f"| {_MARKS[one.verdict]} {code(cut(one.stack))} | {_sentence(one)} |" for one in ordered]
    table = _Part(0, rows, "| stack | verdict |\n|---|---|" if rows else "")
    stacks = [_parts(review, alone=alone) for review in ordered]
    _fit(table, stacks, limit)
    return _joined([table, *(part for stack in stacks for part in stack)])


def code(text: str) -> str:
    """A code span with the text as it is, on one line, also within a table."""
    line = escaped(text).replace("\n", "⏎").replace("\t", " ").replace("|", "¦") or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def prose(text: str) -> str:
    """A sentence: words as words, all else as code."""
    words = re.split(r"(\s+)", escaped(text))
    return "".join("<br>" if "\n" in word else _word(word) for word in words if word)


def _word(word: str) -> str:
    plain = word.isspace() or _CODE.fullmatch(word) or (_WORD.fullmatch(word) and not _LINKED.search(word))
    return word if plain else code(word)


@dataclass
class _Part:
    """Some lines, with what stands before and after all of them."""

    weight: int
    """The greater, the sooner it is cut."""
    lines: list[str]
    before: str = ""
    after: str = ""
    left_out: int = 0

    @property
    def text(self) -> str:
        told = f"… {self.left_out} lines are left out, because a comment has a limit" if self.left_out else ""
        if told and not self.lines:
            return f"… {self.left_out} lines are left out"
        return "\n".join(filter(None, [self.before, *self.lines, told, self.after]))

    def cut(self, excess: int) -> None:
        """Leave out lines from its end until `excess` bytes are saved, or nothing is left."""
        saved = -_NOTICE
        while self.lines and saved < excess:
            saved += _length(self.lines.pop()) + 1
            self.left_out += 1


def _parts(review: Review, *, alone: bool) -> list[_Part]:
    title = f"{_MARKS[review.verdict]} {code(cut(review.stack or 'the stack'))}: **{_sentence(review)}**"
    head = f"### {title}" if alone else f"<details><summary>{_summary(review)}</summary>"
    rows = [
        f"| {_server(review, server)} | {'<br>'.join(map(_effect, effects))} |"
        for server, effects in by_server(review.effects)
    ]
    sections: list[tuple[int, str, list[str]]] = [
        (2, "**Changed behind Pulumi's back** (found → after `up`)", [_change(in_words(one)) for one in review.drift]),
        (3, "**The stack file changes**", [*map(_change, gathered(review.declared))]),
        (4, "**Not known**", [f"- {prose(cut(one, LONG))}" for one in review.unknown]),
        (4, "**Said by the preview**", [f"- {prose(cut(one, LONG))}" for one in review.notes]),
    ]
    parts = [_Part(0, [], head), _Part(1, rows, "| server | what happens |\n|---|---|" if rows else "")]
    parts += [_Part(weight, lines, f"{name}\n" if lines else "") for weight, name, lines in sections]
    if told := policies_told(review):
        lines = [f"- {prose(cut(violation(one), LONG))}" for one in review.policies]
        parts.append(_Part(2, lines, f"**Policies**: {told}" + ("\n" if lines else "")))
    if review.diff:
        whole = [line for one in review.diff for line in _altered(one)]
        before = f"<details><summary>{len(review.diff)} resources, with all values</summary>\n\n```diff"
        parts.append(_Part(5, whole, before, "```\n\n</details>"))
    if not alone:
        parts.append(_Part(0, [], "</details>"))
    return parts


def _effect(effect: Effect) -> str:
    text = prose(cut(effect.text, LONG))
    return text.replace("→ primary", "→ **primary**", 1) if effect.kind == "promotion" else text


def _server(review: Review, name: str) -> str:
    return " ".join(filter(None, [code(cut(name)), review.roles.get(name, "")]))


def _sentence(review: Review) -> str:
    return prose(cut(review.sentence))


def _summary(review: Review) -> str:
    """Within HTML, where no Markdown is read: the stack's name as HTML code."""
    text = escaped(cut(review.stack or "the stack"))
    safe = "".join(char if char.isalnum() or char in "-_." else f"&#{ord(char)};" for char in text)
    return f"{_MARKS[review.verdict]} <code>{safe}</code>"


def _change(change: Change) -> str:
    resource = prose(cut(change.resource))
    if change.what:
        found, declared = _value(change.found, change.declared), _value(change.declared, change.found)
        return f"- {resource}, {code(cut(change.what))}: {found} → {declared}"
    before = f"{prose(cut(change.found, LONG))} → " if change.found else ""
    return f"- {resource}: {before}{prose(cut(change.declared, LONG))}"


def _value(value: str | None, other: str | None) -> str:
    return "(none)" if value is None else code(brief(value, other))


def _altered(one: Altered) -> list[str]:
    """Each line begins with a sign or four spaces, so that none ends the block of code."""
    lines = [f"{_SIGNS.get(one.operation, '~')} {one.resource} ({one.operation})"]
    lines += [f"    {change.what}: {cut(change.found)} → {cut(change.declared)}" for change in one.changes]
    return [escaped(line).replace("\n", "⏎") for line in lines]


def _length(text: str) -> int:
    return len(text.encode())


def _joined(parts: Sequence[_Part]) -> str:
    return "\n\n".join(text for part in parts if (text := part.text)) + "\n"


def _fit(table: _Part, stacks: list[list[_Part]], limit: int) -> None:
    """Lines first, from the least important and the best stack on; then whole stacks, and in the end rows of the table."""

    def excess() -> int:
        return _length(_joined([table, *(part for stack in stacks for part in stack)])) - limit

    over = excess()
    # The order of `stacks` decides between two parts of one weight.
    for part in sorted((part for stack in reversed(stacks) for part in stack), key=lambda part: -part.weight):
        if over <= 0:
            return
        before = _length(part.text)
        part.cut(over)
        over -= before - _length(part.text)
    whole = len(stacks)
    over = excess() + _NOTICE
    while over > _NOTICE and len(stacks) > 1:
        over -= _length(_joined(stacks.pop()))
    if whole > len(stacks):
        table.after = f"\n… what {whole - len(stacks)} more stacks do is left out, because a comment has a limit"
    if (over := excess()) > 0:
        table.cut(over)
