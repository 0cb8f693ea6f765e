"""The comment of a pull request, against a server that speaks the few calls of GitHub and GitLab that are used."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tde_replication.errors import UserError
from tde_replication.review import read, review
from tde_replication.review.__main__ import main
from tde_replication.review.forge import MARK, PAGE, forge
from tde_replication.review.reviewed import header
from tests.unit.previews import Stream, changed

TOKEN = "a-token-of-the-job"


FIXED = re.compile(r"/(user|(?:pulls|merge_requests)(?:/12)?)$")
"""The ends of paths with one answer."""


class Service(ThreadingHTTPServer):
    """Comments in the order in which they were made; both forges' paths lead to them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, Any]] = []
        self.issues: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        """Those that a commit belongs to."""
        self.request: dict[str, Any] = {}
        """The one that the job is for."""
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.status = 200

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, body: str, author: str, number: int) -> None:
        one = {"id": len(self.comments) + 1, "body": body}
        self.comments.append({**one, "user": {"login": author}, "author": {"id": number}})

    def open(self, title: str, body: str, author: str, number: int, labels: Any = "") -> None:
        made = {"iid": len(self.issues) + 1, "number": len(self.issues) + 1, "title": title, "state": "opened"}
        text = {"body": body, "description": body, "labels": labels if isinstance(labels, str) else labels[0]}
        self.issues.append({**made, **text, "user": {"login": author}, "author": {"id": number}})

    def change(self, number: int, sent: dict[str, Any]) -> None:
        one = self.issues[number - 1]
        text = sent.get("body") or sent.get("description") or one["body"]
        state = sent.get("state") or sent.get("state_event") or one["state"]
        one |= {"body": text, "description": text, "state": "closed" if state.startswith("close") else "opened"}

    def bodies(self, author: str) -> list[str]:
        return [one["body"] for one in self.comments if one["user"]["login"] == author]


class Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = urlsplit(self.path)
        service, bearer = self.server, self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN")
        service.asked.append((self.command, path.path))
        service.tokens.add(bearer)
        sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        answer: Any = {}
        if service.status != 200:
            answer = {"message": f"not allowed with {TOKEN[:2]}…"}
        elif self.command == "GET" and (fixed := FIXED.search(path.path)):
            one = service.request if fixed[1].endswith("12") else service.requests
            answer = {"id": 7} if fixed[1] == "user" else one
        elif self.command == "GET" and path.path.endswith("/issues"):
            page, size = (int(parse_qs(path.query)[name][0]) for name in ("page", "per_page"))
            answer = service.issues[(page - 1) * size : page * size]
        elif self.command == "POST" and path.path.endswith("/issues"):
            text = sent.get("body") or sent["description"]
            service.open(sent["title"], text, "github-actions[bot]", 7, sent["labels"])
        elif path.path.rpartition("/")[0].endswith("/issues"):
            service.change(int(path.path.rpartition("/")[2]), sent)
        elif self.command == "GET":
            page, size = (int(parse_qs(path.query)[name][0]) for name in ("page", "per_page"))
            answer = service.comments[(page - 1) * size : page * size]
        elif self.command == "POST":
            service.add(sent["body"], "github-actions[bot]", 7)
        else:
            service.comments[int(path.path.rpartition("/")[2]) - 1]["body"] = sent["body"]
        content = json.dumps(answer).encode()
        self.send_response(service.status)
        if service.status == 302:
            self.send_header("Location", f"{service.address}/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = _answer  # noqa: N815 - the names of http.server


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(params=["GitHub", "GitLab"])
def environ(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> dict[str, str]:
    """As a job of that forge has it."""
    event = tmp_path / "event.json"
    event.write_text('{"pull_request": {"number": 12}}')
    if request.param == "GitHub":
        names = {"GITHUB_API_URL": service.address, "GITHUB_REPOSITORY": "team/stacks", "GITHUB_EVENT_PATH": str(event)}
        return {**names, "GITHUB_TOKEN": TOKEN}
    names = {"CI_API_V4_URL": service.address, "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "12"}
    return {**names, "GITLAB_TOKEN": TOKEN}


def test_a_comment_is_made_once_and_edited_in_place_after_that(service: Service, environ: dict[str, str]) -> None:
    service.add("a word of a person", "someone", 1)
    assert [forge(environ).comment(f"review {number}") for number in (1, 2, 3)] == ["made", "edited", "edited"]
    assert service.bodies("github-actions[bot]") == [f"{MARK}\nreview 3"]
    github = "GITHUB_TOKEN" in environ
    assert service.asked[0] == (
        "GET",
        "/repos/team/stacks/issues/12/comments" if github else "/projects/3/merge_requests/12/notes",
    )
    edited = (
        ("PATCH", "/repos/team/stacks/issues/comments/2")
        if github
        else ("PUT", "/projects/3/merge_requests/12/notes/2")
    )
    assert service.asked[-1] == edited
    assert service.tokens == {f"Bearer {TOKEN}" if github else TOKEN}


def test_the_comment_of_somebody_else_is_not_edited_whatever_it_begins_with(
    service: Service, environ: dict[str, str]
) -> None:
    service.add(f"{MARK}\nall is well", "a-stranger", 66)
    assert forge(environ).comment("the review") == "made"
    assert service.bodies("a-stranger") == [f"{MARK}\nall is well"]


def test_it_is_found_on_a_later_page(service: Service, environ: dict[str, str]) -> None:
    for number in range(2 * PAGE):
        service.add(f"word {number}", "someone", 1)
    assert [forge(environ).comment(text) for text in ("a", "b")] == ["made", "edited"]


@pytest.mark.parametrize("status", [403, 500, 302])
def test_a_refusal_is_a_sentence_without_the_token(service: Service, environ: dict[str, str], status: int) -> None:
    service.status = status
    with pytest.raises(UserError, match=f"did not take GET .*: it answered {status}: ") as refused:
        forge(environ).comment("the review")
    assert TOKEN not in str(refused.value)
    assert len(service.asked) == 1, "a redirect is not followed"


def test_a_service_that_is_down_is_a_sentence(service: Service, environ: dict[str, str]) -> None:
    service.server_close()
    with pytest.raises(UserError, match="did not take GET"):
        forge(environ).comment("the review")


def test_what_is_missing_is_named(environ: dict[str, str]) -> None:
    for missing in environ.keys() - {"GITHUB_API_URL", "GITHUB_REPOSITORY", "CI_MERGE_REQUEST_IID"}:
        with pytest.raises(UserError, match=missing):
            forge({name: value for name, value in environ.items() if name != missing})
    with pytest.raises(UserError, match="this is no job of GitHub Actions or GitLab CI"):
        forge({})


def test_the_command_comments_what_it_writes(
    service: Service,
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "orders.json"
    file.write_text(changed(Stream(), work_mem="9MB").text)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["--comment", "--format", "markdown", str(file)]) == 0
    [body] = service.bodies("github-actions[bot]")
    assert body == f"{MARK}\n{header([review(read(file.read_text()))])}{capsys.readouterr().out}"


def test_the_token_goes_by_https_alone(environ: dict[str, str]) -> None:
    plain = {
        name: "http://forge.example" if name.endswith(("API_URL", "V4_URL")) else one for name, one in environ.items()
    }
    with pytest.raises(UserError, match=r"https in http://forge\.example"):
        forge(plain)
