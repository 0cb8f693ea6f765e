"""The one comment of a pull request (GitHub) or merge request (GitLab), made once and edited in place after that."""

import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tde_replication.errors import UserError

MARK = "<!-- tde-replication review -->"
"""The first line of the comment, by which it is found again."""
PAGE = 100
PAGES = 50
"""As many are looked through; a request with more comments gets another one."""
DEADLINE = 30.0
LARGEST = 16 * 1024 * 1024
"""Bytes of an answer."""


class Forge(ABC):
    """The comments of one request."""

    name: ClassVar[str]

    def __init__(self, comments: str, token: str) -> None:
        self._comments, self._token = comments, token

    def comment(self, text: str) -> str:
        """Have one comment with this text; what was done. Raises `UserError`."""
        body = {"body": f"{MARK}\n{text}"}
        for number in range(1, PAGES + 1):
            page = self._call("GET", f"{self._comments}?per_page={PAGE}&page={number}")
            for found in page:
                if str(found.get("body", "")).startswith(MARK) and self._is_mine(found):
                    self._call(self._edit, self._of(found), body)
                    return "edited"
            if len(page) < PAGE:
                break
        self._call("POST", self._comments, body)
        return "made"

    _edit: ClassVar[str]
    """The method that edits."""

    @abstractmethod
    def _is_mine(self, comment: Mapping[str, Any]) -> bool:
        """Whether this token's account wrote it. Anybody can write the mark into a comment of their own."""

    @abstractmethod
    def _of(self, comment: Mapping[str, Any]) -> str:
        """The address of a comment."""

    @abstractmethod
    def _headers(self) -> Mapping[str, str]: ...

    def _call(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._headers()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - see `_opener`
        what = f"{self.name} did not take the comment ({method} {url.partition('?')[0]})"
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

    def __init__(self, api: str, repository: str, number: int, token: str, author: str) -> None:
        """`author`: the login of the token's account, "github-actions[bot]" for that of a workflow."""
        super().__init__(f"{api}/repos/{repository}/issues/{number}/comments", token)
        self._edited, self._author = f"{api}/repos/{repository}/issues/comments", author

    def _is_mine(self, comment: Mapping[str, Any]) -> bool:
        return bool(comment["user"]["login"] == self._author)

    def _of(self, comment: Mapping[str, Any]) -> str:
        return f"{self._edited}/{int(comment['id'])}"

    def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._token}", "X-GitHub-Api-Version": "2022-11-28"}


class GitLab(Forge):
    name = "GitLab"
    _edit = "PUT"

    def __init__(self, api: str, project: str, number: int, token: str) -> None:
        super().__init__(f"{api}/projects/{project}/merge_requests/{number}/notes", token)
        self._api = api
        self._id: int | None = None

    def _is_mine(self, comment: Mapping[str, Any]) -> bool:
        if self._id is None:
            self._id = int(self._call("GET", f"{self._api}/user")["id"])
        return bool(comment["author"]["id"] == self._id)

    def _of(self, comment: Mapping[str, Any]) -> str:
        return f"{self._comments}/{int(comment['id'])}"

    def _headers(self) -> Mapping[str, str]:
        return {"PRIVATE-TOKEN": self._token}


def forge(environ: Mapping[str, str]) -> Forge:
    """As the variables of GitHub Actions or GitLab CI say. Raises `UserError` where they say nothing."""
    try:
        if "GITHUB_REPOSITORY" in environ:
            number = environ.get("TDE_REVIEW_PULL_REQUEST") or _pull_request(Path(environ["GITHUB_EVENT_PATH"]))
            api = _https(environ.get("GITHUB_API_URL", "https://api.github.com"))
            author = environ.get("TDE_REVIEW_AUTHOR", "github-actions[bot]")
            return GitHub(api, environ["GITHUB_REPOSITORY"], int(number), environ["GITHUB_TOKEN"], author)
        if "CI_MERGE_REQUEST_IID" in environ:
            project, number = environ["CI_PROJECT_ID"], environ["CI_MERGE_REQUEST_IID"]
            return GitLab(_https(environ["CI_API_V4_URL"]), project, int(number), environ["GITLAB_TOKEN"])
    except (KeyError, ValueError, OSError, TypeError) as missing:
        raise UserError(f"the comment cannot be made: {missing} is missing or wrong (see docs/review.md)") from None
    raise UserError(
        "the comment cannot be made: this is no job of a pull request on GitHub or of a merge request on GitLab"
    )


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
