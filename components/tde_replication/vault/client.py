"""Vault's HTTP API as this project itself asks it. The standard library alone, so that the bootstrap can use it too.

The other end may be anybody's: a token goes over TLS or a loopback only, no redirect is followed, and every answer has a
deadline and a limit.
"""

import json
import os
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from tde_replication.errors import Unavailable, UserError
from tde_replication.vault_url import address_mistake, on_loopback

DEADLINE = 10.0
"""Seconds for one answer, from the first packet to the last byte."""
LIMIT = 1 << 20
"""Bytes of one answer. The largest that is asked for is a list of names."""
REDIRECTS = range(300, 400)
MISSING, SEALED, NOT_INITIALIZED = 404, 503, 501

Answer = TypeVar("Answer")


class Denied(UserError):
    """Vault does not let this token do it."""


class NotReady(UserError):
    """A Vault answers that opens nothing now: it is sealed, or not initialized."""


class Rejected(UserError):
    """Vault refused a request for what is in it: `errors` are its own words."""

    def __init__(self, sentence: str, status: int, errors: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.errors = errors


@dataclass(frozen=True)
class Client:
    """Asks the Vault at `address`."""

    address: str
    token: str | None = field(default=None, repr=False)
    ca: str | None = None
    """The file of the CA certificate; None: those that this machine trusts."""
    namespace: str | None = None

    def health(self) -> None:
        """Return where it is open and takes requests; no token is sent. Raises `UserError` with what to do otherwise."""
        if self.namespace:
            replace(self, namespace=None).health()  # no namespace has one of its own
            return
        status, _ = self._send("GET", "sys/health?standbyok=true&perfstandbyok=true", None, None)
        if status == NOT_INITIALIZED:
            raise NotReady(f"the Vault at {self.address} is not initialized: run `vault operator init` there first")

    def get(self, path: str) -> dict[str, Any] | None:
        """The data at `path`; None where there is nothing."""
        answer = self._ask("GET", path)
        data = answer.get("data") if answer is not None else None
        return data if isinstance(data, dict) else None

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer to `body`; empty where Vault says no more than that it is done."""
        answer = self._ask("POST", path, body)
        if answer is None:
            raise Rejected(f"the Vault at {self.address} has no {path}", MISSING, "")
        return answer

    def delete(self, path: str) -> None:
        """Have nothing at `path`. It may be gone already, and the mount with it."""
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        status, answer = self._send(method, path, body, self.token)
        # A secret whose newest version was deleted is "not found", with its metadata.
        if status == MISSING:
            return answer if answer.get("data") else None
        return answer

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, token: str | None
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer. Raises `UserError` where that is an error, but for "not found" and "not initialized"."""
        if mistake := address_mistake(self.address):
            raise UserError(mistake)
        headers = {"X-Vault-Request": "true"}
        headers |= {"X-Vault-Token": token} if token else {}
        headers |= {"X-Vault-Namespace": self.namespace} if self.namespace else {}
        where, _, query = path.partition("?")
        request = Request(  # noqa: S310 - address_mistake
            f"{self.address.rstrip('/')}/v1/{quote(where)}{'?' if query else ''}{query}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        handlers = [_NoRedirects(), HTTPSHandler(context=trust(self.ca))]
        # A proxy is for other machines: one for plain http would read the token.
        opener = build_opener(*handlers, *([ProxyHandler({})] if on_loopback(self.address) else []))

        def exchange() -> tuple[int, HTTPMessage, bytes]:
            try:
                answer = opener.open(request, timeout=DEADLINE)
            except HTTPError as error:
                answer = error
            with answer:
                return answer.status or 0, answer.headers, answer.read(LIMIT + 1)

        try:
            status, received, content = _within(DEADLINE, exchange)
        except TimeoutError:
            raise Unavailable(f"the Vault at {self.address} did not answer within {DEADLINE:g} s") from None
        except (OSError, HTTPException, ValueError) as error:
            raise self._unreachable(error) from None
        if status in REDIRECTS:
            raise UserError(
                f"the Vault at {self.address} answered with a redirect to {received.get('Location', 'nowhere')[:200]}: nothing "
                "more was sent, for servers would send their tokens there too. Name the address of the Vault itself"
            )
        if len(content) > LIMIT:
            raise UserError(
                f"the Vault at {self.address} answered {path} with more than {LIMIT >> 20} MiB: is it a Vault?"
            )
        return status, self._read(status, method, path, content)

    def _read(self, status: int, method: str, path: str, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content) if content.strip() else {}
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise UserError(f"what answers at {self.address} (status {status}) is not a Vault: check vault:address")
        errors = answer.get("errors")
        told = "; ".join(" ".join(str(text).split()) for text in errors) if isinstance(errors, list) else ""
        match status:
            case 200 | 204 | 404 | 501:
                return answer
            case 403:
                raise Denied(
                    f"the Vault at {self.address} denies {path} to this token ({told or 'permission denied'}): "
                    f"{_needed(method, path)}"
                )
            case 503 if answer.get("sealed") or "sealed" in told:
                raise NotReady(
                    f"the Vault at {self.address} is sealed: unseal it and run this again (`make vault` unseals the embedded one)"
                )
            case _ if status >= 500:  # noqa: PLR2004 - HTTP's server errors
                raise Unavailable(f"the Vault at {self.address} answered {path} with status {status}: {told[:500]}")
            case _:
                raise Rejected(f"the Vault at {self.address} refuses {path} ({status}): {told[:500]}", status, told)

    def _unreachable(self, error: Exception) -> UserError:
        cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
        match cause:
            case ConnectionRefusedError():
                return Unavailable(
                    f"nothing listens at {self.address}: start that Vault and run this again (`make vault` starts the embedded "
                    "one)"
                )
            case ssl.SSLCertVerificationError():
                signer = (
                    f"the CA in {self.ca} (cluster.vault.ca, VAULT_CACERT)"
                    if self.ca
                    else "a CA that this machine trusts: set cluster.vault.ca"
                )
                return UserError(f"the certificate of {self.address} is not signed by {signer}: {cause.verify_message}")
            case ssl.SSLError() if cause.reason:
                return UserError(f"{self.address} does not speak TLS as it should ({cause.reason}): is it http?")
            case TimeoutError():
                return Unavailable(f"the Vault at {self.address} did not answer within {DEADLINE:g} s")
            case OSError():
                return Unavailable(f"the Vault at {self.address} cannot be reached: {cause.strerror or cause}")
            case _:
                return UserError(f"what answers at {self.address} is not a Vault: check vault:address")


def _needed(method: str, path: str) -> str:
    """The line of a policy that is missing, unless the token itself is no longer valid: Vault answers the same for both."""
    where, _, query = path.partition("?")
    capabilities = {"POST": ("create", "update"), "DELETE": ("delete",)}.get(method, ("read",))
    if query == "list=true":
        capabilities = ("list",)
    wanted = ", ".join(f'"{one}"' for one in capabilities)
    return f'check that the token is still valid and that a policy of it has path "{where}" {{ capabilities = [{wanted}] }}'


class _NoRedirects(HTTPRedirectHandler):
    """Lets the redirect itself be the answer."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        del req, fp, code, msg, headers, newurl


def environment_token() -> str | None:
    """What the environment has, as Vault's own programs look for it; it is for the Vault at VAULT_ADDR."""
    if token := os.environ.get("VAULT_TOKEN"):
        return token
    try:
        return Path("~/.vault-token").expanduser().read_text().strip() or None
    except OSError:
        return None


def trust(ca: str | None) -> ssl.SSLContext:
    """What is trusted with the CA in a file. Raises `UserError` where that holds none."""
    try:
        return ssl.create_default_context(cafile=ca)
    except FileNotFoundError:
        raise UserError(f"there is no file {ca} (cluster.vault.ca, VAULT_CACERT)") from None
    except ssl.SSLError as error:
        raise UserError(f"{ca} holds no certificate ({error.reason})") from None
    except OSError as error:
        raise UserError(f"{ca} cannot be read: {error.strerror}") from None


def _within(seconds: float, work: Callable[[], Answer]) -> Answer:
    """What `work` returns. Raises `TimeoutError` when it takes longer, and leaves it to itself: neither a name that is looked
    up nor an answer that comes byte by byte ends by a timeout of the socket."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised by `result`
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)
