"""The few calls of GitHub and GitLab that are used: the one comment of a pull or merge request, made once and edited in place
after that; and one issue for each stack, made, edited, closed and opened again."""

import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from tde_replication.errors import UserError

MARK = "<!-- tde-replication review -->"
"""The first line of the comment, by which it is found again."""
LABEL = "tde-replication-drift"
"""Of every issue here, so that few are looked through."""
PAGE = 100
PAGES = 50
"""As many are looked through; a request with more comments gets another one."""
DEADLINE = 30.0
LARGEST = 16 * 1024 * 1024
"""Bytes of an answer."""


class Forge(ABC):
    """What one token may read and write."""

    name: ClassVar[str]
    _edit: ClassVar[str]
    """The method that edits."""
    _text: ClassVar[str]
    """The key of an issue's text."""
    _states: ClassVar[Mapping[bool, Mapping[str, str]]]
    """What opens an issue, and what closes it."""
    _number: ClassVar[str]
    """The key of its number."""
    _labels: ClassVar[list[str] | str]

    def __init__(self, request: str, comments: str, issues: str, token: str) -> None:
        """`request`, with its labels, and its `comments`, where there is one; `issues` of the repository."""
        self._request, self._comments, self._issues, self._token = request, comments, issues, token

    def comment(self, text: str) -> str:
        """Have one comment with this text; what was done. Raises `UserError`."""
        body = {"body": f"{MARK}\n{text}"}
        if found := self._commented():
            self._call(self._edit, self._of(found), body)
            return "edited"
        self._call("POST", self._comments, body)
        return "made"

    def commented(self) -> str:
        """The text of that comment, below its mark; empty where nobody has made it. Raises `UserError`."""
        found = self._commented()
        return str(found["body"]).removeprefix(MARK).lstrip("\r\n") if found else ""

    def labels(self) -> list[str]:
        """The names of the request's labels. Raises `UserError`."""
        found = self._call("GET", self._request).get("labels") or []
        return [str(one["name"] if isinstance(one, dict) else one) for one in found]

    def issue(self, mark: str, title: str, text: str | None) -> str:
        """Have one open issue with this text; None: have none that is open. `mark` is its first line, by which it is found again.
        What was done. Raises `UserError`."""
        issues = self._all(f"{self._issues}?labels={LABEL}&state=all&")
        found = next(
            (one for one in issues if str(one.get(self._text, "")).startswith(mark) and self._is_mine(one)), None
        )
        is_open = found is not None and str(found["state"]).startswith("open")
        content = {"title": title, self._text: f"{mark}\n{text}"}
        if found is None and text is not None:
            self._call("POST", self._issues, {**content, "labels": self._labels})
            return "opened"
        if found is None or (text is None and not is_open):
            return "left as it is"
        where = f"{self._issues}/{int(found[self._number])}"
        if text is None:
            self._call(self._edit, where, self._states[False])
            return "closed"
        self._call(self._edit, where, {**content, **({} if is_open else self._states[True])})
        return "edited" if is_open else "opened again"

    def _commented(self) -> Mapping[str, Any] | None:
        comments = self._all(f"{self._comments}?")
        return next((one for one in comments if str(one.get("body", "")).startswith(MARK) and self._is_mine(one)), None)

    def _all(self, url: str) -> Iterator[Mapping[str, Any]]:
        for number in range(1, PAGES + 1):
            page = self._call("GET", f"{url}per_page={PAGE}&page={number}")
            yield from page
            if len(page) < PAGE:
                return

    def merged_from(self, address: str, commit: str) -> int:
        """The number of the request that a commit was merged from. Raises `UserError` where there is not exactly one."""
        numbers = {
            int(one[self._number])
            for one in self._call("GET", address)
            if commit in {one.get("merge_commit_sha"), one.get("squash_commit_sha"), one.get("sha")}
        }
        if len(numbers) != 1:
            raise UserError(f"commit {commit} was not merged from one pull request, so nobody has reviewed its plan")
        return numbers.pop()

    @abstractmethod
    def _is_mine(self, written: Mapping[str, Any]) -> bool:
        """Whether this token's account wrote it. Anybody can write the mark into a comment or an issue of their own."""

    @abstractmethod
    def _of(self, comment: Mapping[str, Any]) -> str:
        """The address of a comment."""

    @abstractmethod
    def _headers(self) -> Mapping[str, str]: ...

    def _call(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._headers()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - see `_opener`
        what = f"{self.name} did not take {method} {url.partition('?')[0]}"
        try:
            with _OPENER.open(request, timeout=DEADLINE) as answer:
                return json.loads(answer.read(LARGEST) or b"null")
        except urllib.error.HTTPError as error:
            with error:
                raise UserError(
                    f"{what}: it answered {error.code}: {error.read(300).decode(errors='replace')}"
                ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{what}: {error}") from None


class GitHub(Forge):
    name = "GitHub"
    _edit = "PATCH"
    _text = "body"
    _states = {True: {"state": "open"}, False: {"state": "closed"}}
    _number = "number"
    _labels = [LABEL]

    def __init__(self, repository: str, number: int, token: str, author: str) -> None:
        """`repository`: its address; `number` of a pull request, 0: of none; `author`: the login of the token's account,
        "github-actions[bot]" for that of a workflow."""
        issues = f"{repository}/issues"
        super().__init__(f"{repository}/pulls/{number}", f"{issues}/{number}/comments", issues, token)
        self._author = author

    def _is_mine(self, written: Mapping[str, Any]) -> bool:
        return bool(written["user"]["login"] == self._author) and "pull_request" not in written

    def _of(self, comment: Mapping[str, Any]) -> str:
        return f"{self._issues}/comments/{int(comment['id'])}"

    def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._token}", "X-GitHub-Api-Version": "2022-11-28"}


class GitLab(Forge):
    name = "GitLab"
    _edit = "PUT"
    _text = "description"
    _states = {True: {"state_event": "reopen"}, False: {"state_event": "close"}}
    _number = "iid"
    _labels = LABEL

    def __init__(self, api: str, project: str, number: int, token: str) -> None:
        """`number` of a merge request, 0: of none."""
        address = f"{api}/projects/{project}"
        request = f"{address}/merge_requests/{number}"
        super().__init__(request, f"{request}/notes", f"{address}/issues", token)
        self._api = api
        self._id: int | None = None

    def _is_mine(self, written: Mapping[str, Any]) -> bool:
        if self._id is None:
            self._id = int(self._call("GET", f"{self._api}/user")["id"])
        return bool(written["author"]["id"] == self._id)

    def _of(self, comment: Mapping[str, Any]) -> str:
        return f"{self._comments}/{int(comment['id'])}"

    def _headers(self) -> Mapping[str, str]:
        return {"PRIVATE-TOKEN": self._token}


def forge(environ: Mapping[str, str], which: Literal["request", "merged", "none"] = "request") -> Forge:
    """As the variables of GitHub Actions or GitLab CI say. `which`: of the pull request that the job is for; of the one that the
    job's commit was merged from; or of none. Raises `UserError` where they say nothing."""
    try:
        if "GITHUB_REPOSITORY" in environ:
            return _github(environ, which)
        if "CI_PROJECT_ID" in environ or "CI_API_V4_URL" in environ:
            return _gitlab(environ, which)
    except (KeyError, ValueError, OSError, TypeError) as missing:
        raise UserError(f"the forge cannot be asked: {missing} is missing or wrong (see docs/review.md)") from None
    raise UserError("the forge cannot be asked: this is no job of GitHub Actions or GitLab CI")


def _github(environ: Mapping[str, str], which: str) -> GitHub:
    api = _https(environ.get("GITHUB_API_URL", "https://api.github.com"))
    repository = f"{api}/repos/{environ['GITHUB_REPOSITORY']}"
    token, author = environ["GITHUB_TOKEN"], environ.get("TDE_REVIEW_AUTHOR", "github-actions[bot]")
    number = 0
    if which == "merged":
        asked = GitHub(repository, 0, token, author)
        commit = environ["GITHUB_SHA"]
        number = asked.merged_from(f"{repository}/commits/{commit}/pulls", commit)
    elif which == "request":
        number = int(environ.get("TDE_REVIEW_PULL_REQUEST") or _pull_request(Path(environ["GITHUB_EVENT_PATH"])))
    return GitHub(repository, number, token, author)


def _gitlab(environ: Mapping[str, str], which: str) -> GitLab:
    api, project, token = _https(environ["CI_API_V4_URL"]), environ["CI_PROJECT_ID"], environ["GITLAB_TOKEN"]
    number = 0
    if which == "merged":
        commit = environ["CI_COMMIT_SHA"]
        address = f"{api}/projects/{project}/repository/commits/{commit}/merge_requests"
        number = GitLab(api, project, 0, token).merged_from(address, commit)
    elif which == "request":
        number = int(environ["CI_MERGE_REQUEST_IID"])
    return GitLab(api, project, number, token)


def _pull_request(event: Path) -> int:
    return int(json.loads(event.read_text())["pull_request"]["number"])


def _https(address: str) -> str:
    """The token goes by https alone, but for this machine."""
    if not address.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError(f"https in {address}")
    return address.rstrip("/")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would be sent the token."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
