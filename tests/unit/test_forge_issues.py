"""One issue for each stack that has drifted; and which plan was reviewed before a commit was merged."""

import json
from pathlib import Path

import pytest

from tde_replication.errors import UserError
from tde_replication.records import Unasked
from tde_replication.review import Review, digest, read, review
from tde_replication.review.__main__ import main
from tde_replication.review.forge import LABEL, MARK, PAGE, forge
from tde_replication.review.issues import settle
from tde_replication.review.merged import main as merged
from tde_replication.review.reviewed import header, plan_in
from tests.unit.previews import Stream, changed, server
from tests.unit.test_forge import Service, environ, service  # noqa: F401 - fixtures

STACKS = ("orders", "billing")


def drifted(stack: str = "orders", found: str = "1MB") -> Review:
    was = server("db1", settings={"work_mem": "4MB"})
    live = server("db1", settings={"work_mem": found})
    return review(read(Stream(stack).change("Server", "db1", was, live, was).text))


def well(stack: str = "orders") -> Review:
    return review(read(changed(Stream(stack), work_mem="9MB").text))


def unasked() -> Review:
    stream = changed(Stream().record(Unasked(what="Server db2", why="db2 cannot be reached")), work_mem="9MB")
    return review(read(stream.text))


def settled(environ: dict[str, str], *reviews: Review) -> list[str]:  # noqa: F811
    return [line.rpartition(": ")[2] for line in settle(reviews, forge(environ, "none"))]


def states(service: Service) -> list[tuple[str, str]]:  # noqa: F811
    return [(one["title"], one["state"].removesuffix("ed")) for one in service.issues]


def test_an_issue_is_opened_edited_closed_and_opened_again(service: Service, environ: dict[str, str]) -> None:  # noqa: F811
    assert settled(environ, well()) == ["left as it is"]
    assert service.issues == []
    assert settled(environ, drifted(), drifted("billing")) == ["opened", "opened"]
    assert states(service) == [(f"Drift of stack {stack}", "open") for stack in STACKS]
    assert {one["labels"] for one in service.issues} == {LABEL}
    assert settled(environ, drifted(found="2MB")) == ["edited"]
    assert "`2MB` → `4MB`" in service.issues[0]["body"]
    assert settled(environ, well(), drifted("billing")) == ["closed", "edited"]
    assert [state for _, state in states(service)] == ["clos", "open"]
    assert settled(environ, well()) == ["left as it is"]
    assert settled(environ, drifted()) == ["opened again"]
    assert [state for _, state in states(service)] == ["open", "open"]
    assert len(service.issues) == 2


def test_what_could_not_be_asked_closes_nothing_and_opens_nothing(service: Service, environ: dict[str, str]) -> None:  # noqa: F811
    stopped = review(read(changed(Stream(result="failed"), work_mem="9MB").text))
    digest_form = review(read(changed(Stream(), work_mem="9MB").digest))
    for unknown in (unasked(), stopped, digest_form):
        assert settled(environ, unknown) == ["left as it is"]
        assert service.issues == []
    settled(environ, drifted())
    for unknown in (unasked(), stopped, digest_form):
        assert settled(environ, unknown) == ["left as it is"]
        assert [state for _, state in states(service)] == ["open"]


def test_an_issue_of_somebody_else_is_left_alone(service: Service, environ: dict[str, str]) -> None:  # noqa: F811
    service.open("a stranger's", "<!-- tde-replication drift: orders -->\nall is well", "a-stranger", 66)
    assert settled(environ, well(), drifted("billing")) == ["left as it is", "opened"]
    assert states(service)[0] == ("a stranger's", "open")


def test_it_is_found_on_a_later_page(service: Service, environ: dict[str, str]) -> None:  # noqa: F811
    for number in range(PAGE + 1):
        service.open(f"another {number}", "text", "github-actions[bot]", 7)
    assert [settled(environ, drifted()) for _ in range(2)] == [["opened"], ["edited"]]


def test_the_command_settles_what_it_reads(
    service: Service,  # noqa: F811
    environ: dict[str, str],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "orders.json"
    was = server("db1", settings={"work_mem": "4MB"})
    file.write_text(Stream().change("Server", "db1", was, server("db1", settings={"work_mem": "1MB"}), was).text)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["--issue", str(file)]) == 0
    assert capsys.readouterr().err == "orders: 1 values have drifted: opened\n"
    assert len(service.issues) == 1


def test_a_preview_that_wrote_nothing_hides_no_other(
    service: Service,  # noqa: F811
    environ: dict[str, str],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As that of a stack which is new, and not made yet: Pulumi knows none of its name."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    texts = {"orders": changed(Stream("orders"), work_mem="9MB").text, "new": "", "cut": '{"steps": [', "gone": None}
    files = [tmp_path / f"preview-{stack}.json" for stack in texts]
    for file, text in zip(files, texts.values(), strict=True):
        if text is not None:
            file.write_text(text)
    assert main(["--format", "markdown", "--comment", *map(str, files)]) == 1
    [comment] = service.bodies("github-actions[bot]")
    assert capsys.readouterr().out in comment
    for stack in ("new", "cut", "gone"):
        assert f"⛔ `{stack}`" in comment
        assert plan_in(comment.removeprefix(MARK).lstrip(), stack) == ""
    assert "🟢 `orders`" in comment
    assert plan_in(comment.removeprefix(MARK).lstrip(), "orders") == digest(well())
    assert main(["--issue", *map(str, files)]) == 1
    assert capsys.readouterr().err.count("not everything could be asked: left as it is\n") == 3


def test_the_plan_is_the_same_as_long_as_up_would_do_the_same() -> None:
    plan = digest(well())
    assert len(plan) == 40
    assert plan == digest(unasked()), "what could not be asked is no part of what is planned"
    others = [
        review(read(changed(Stream(), work_mem="10MB").text)),
        review(read(changed(Stream(), work_mem="9MB", jit="off").text)),
        well("billing"),
        drifted(),
    ]
    assert len({plan, *map(digest, others)}) == 5
    assert digest(review(read(changed(Stream(result="failed"), work_mem="9MB").text))) == ""


def test_a_comment_carries_the_plan_of_each_stack() -> None:
    reviews = [well(), well("billing"), well("evil-->\n<script>")]
    line = header(reviews)
    assert [plan_in(line + "text", stack) for stack in (*STACKS, "other")] == [*map(digest, reviews[:2]), ""]
    assert "script" not in line
    forged = header([drifted()])
    assert plan_in(f"{line}{forged}", "orders") == digest(well())
    assert plan_in(f"all is well\n{forged}", "orders") == ""


def test_a_merged_commit_leads_to_the_plan_that_was_reviewed(
    service: Service,  # noqa: F811
    environ: dict[str, str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forge(environ).comment(f"{header([well()])}the review")
    service.add(f"{MARK}\n{header([drifted()])}", "a-stranger", 66)
    service.requests = [{"number": 12, "iid": 12, "merge_commit_sha": "abc"}, {"number": 9, "iid": 9, "sha": "def"}]
    for name, value in {**environ, "GITHUB_SHA": "abc", "CI_COMMIT_SHA": "abc"}.items():
        monkeypatch.setenv(name, value)
    assert merged(["orders"]) == 0
    assert capsys.readouterr().out == f"{digest(well())}\n"
    assert merged(["billing"]) == 0
    assert capsys.readouterr().out == "\n"
    names = ["large-clone", "no large-clone", "later"]
    service.request = {"labels": [{"name": name} for name in names] if "GITHUB_TOKEN" in environ else names}
    assert merged(["--labels"]) == 0
    assert capsys.readouterr().out == "large-clone later\n"


def test_a_commit_that_nobody_has_reviewed_has_no_plan(service: Service, environ: dict[str, str]) -> None:  # noqa: F811
    pushed = {**environ, "GITHUB_SHA": "abc", "CI_COMMIT_SHA": "abc"}
    for requests in ([], [{"number": 9, "iid": 9, "merge_commit_sha": "def"}]):
        service.requests = requests
        with pytest.raises(UserError, match="commit abc was not merged from one pull request"):
            forge(pushed, "merged")


def test_the_json_says_which_plan_it_is() -> None:
    from tde_replication.review import as_json  # noqa: PLC0415

    [one] = json.loads(as_json([well()]))
    assert one["plan"] == digest(well())
