"""A review as a comment on a pull request: what a stack file or a machine says is never obeyed, and it never gets too long."""

import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from tde_replication.records import Cost, Unasked
from tde_replication.review import as_markdown, read, review
from tde_replication.review.markdown import LIMIT, code, prose
from tests.unit.previews import Stream, server

HOSTILE = [
    "</details></details>\n\n# Approved",
    "<img src=https://evil.example/x.png onerror=alert(1)>",
    "![x](https://evil.example/x.png)",
    "[sign in](https://evil.example)",
    "https://evil.example/path",
    "www.evil.example",
    "@octocat please merge",
    "closes #1, GH-2 and org/repo#3 and !4",
    "a1b2c3d4e5",
    "`` ` ``` code",
    "```\n</details>",
    "a | b | c",
    "<!-- hidden",
    "trailing \\",
    "*bold* _it_ ~~no~~ &lt;script&gt;",
    "\x1b]8;;https://evil.example\x07link",
    "\u202egnp.exe",
    "mail me@evil.example",
    "$`x`$ and $$y$$",
]


class Tags(HTMLParser):
    """The tags of a rendered comment, and its text outside of code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.depth: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not attrs or tag in {"code", "td", "th"}, (tag, attrs)
        if tag != "br":
            self.depth.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.depth.pop() == tag, f"{tag} is closed out of turn"

    def handle_data(self, data: str) -> None:
        if "code" not in self.depth:
            self.text += data


def rendered(markdown: str) -> Tags:
    parser = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"])
    tags = Tags(parser.render(markdown))
    assert tags.depth == []
    return tags


def everywhere(text: str, stack: str = "orders") -> Stream:
    """`text` at every place that a stack file or a machine can reach."""
    recorded = {**server("db1"), "name": text}
    found = {**recorded, "settings": {text: text}}
    stream = Stream(stack).change("Server", text.replace("$", ""), recorded, found, {**found, text: "1"})
    stream.record(Cost(kind="restart", server=text, text=text, loses=text, of="Server"))
    stream.record(Unasked(what=text, why=text))
    clone = {"host": "ssh://db2", "follows": "the primary"}
    stream.change("DataDirectory", "db2", clone, {**clone, "follows": text}, clone)
    return stream.say(text, "warning").say(text, "error", stream.urn("Server", text.replace("$", "")))


ALLOWED = {"h3", "strong", "code", "pre", "p", "br", "ul", "li", "details", "summary"}
ALLOWED |= {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("stacks", [1, 2])
def test_no_value_becomes_anything_but_text(text: str, stacks: int) -> None:
    reviews = [review(read(everywhere(text, f"s{number}").text)) for number in range(stacks)]
    markdown = as_markdown(reviews)
    found = rendered(markdown)
    assert found.tags <= ALLOWED
    for sign in ("://", "www.", "@", "#", "GH-", "a1b2c3d", "<", "!4", "$", "\u202e", "\x1b"):
        assert sign not in found.text, found.text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_code_span_holds_its_text_on_one_line(text: str) -> None:
    assert rendered(code(text)).text.strip() == ""
    assert "\n" not in code(text)
    assert "|" not in code(text)


def test_words_stay_words() -> None:
    told = "server db1 will be restarted: max_connections can only change at start (21.4 MiB), run `up` again."
    assert prose(told) == told


def test_a_server_s_row_says_what_it_is_now() -> None:
    before = server("db2", settings={})
    stream = Stream().change("Server", "db2", before, before, {**before, "settings": {"a": "b"}})
    stream.record(Cost(kind="promotion", server="db2", text="db2: standby → primary", of="Server"))
    assert "| `db2` standby | standby → **primary** |\n" in as_markdown([review(read(stream.text))])


def test_the_stack_s_name_cannot_leave_the_summary() -> None:
    markdown = as_markdown([review(read(everywhere("x", f"{name}</summary><img>").text)) for name in "ab"])
    assert rendered(markdown).tags <= ALLOWED


def big(stack: str, resources: int) -> Stream:
    stream = Stream(stack)
    for number in range(resources):
        before = server(f"db{number}", settings={"a": "1"})
        stream.change("Server", f"db{number}", before, before, {**before, "settings": {"a": "x" * 120, "b": "y" * 120}})
        stream.record(Cost(kind="restart", server=f"db{number}", text=f"db{number} will be restarted", of="Server"))
    return stream


@pytest.mark.parametrize(("stacks", "resources"), [(1, 3), (1, 300), (15, 20), (90, 2)])
@pytest.mark.parametrize("limit", [LIMIT, 6000])
def test_it_is_never_longer_than_a_comment_may_be(stacks: int, resources: int, limit: int) -> None:
    markdown = as_markdown([review(read(big(f"stack{n}", resources).text)) for n in range(stacks)], limit=limit)
    assert len(markdown.encode()) <= limit
    assert rendered(markdown).tags <= ALLOWED
    assert ("left out" in markdown) == (resources > 3 or stacks > 1)
    assert "interrupts" in markdown
    if limit == LIMIT:
        assert len(re.findall(r"will be restarted", markdown)) == stacks * resources, "what matters most stays"


def test_one_stack_has_a_heading_and_several_a_table_with_the_worst_first() -> None:
    calm = Stream("a").refresh("Server", "db1", server("db1"), server("db1"))
    assert as_markdown([review(read(calm.text))]) == "### ⚪ `a`: **nothing to do**\n"
    both = as_markdown([review(read(calm.text)), review(read(big("b", 1).text))])
    assert both.index("`b`") < both.index("`a`")
    assert both.startswith("| stack | verdict |\n|---|---|\n| 🟠 `b` | interrupts db0 ")
