"""Stand-in for pulumi-vault: Mount, Policy, Token and kv.SecretV2, on a real Vault or OpenBao through its HTTP API.

What each does, in which order and with which quirks, is what terraform-provider-vault does (vault/resource_*.go), since
that is what the plugin itself consists of. One thing it does not do: where no session can be opened, the plugin tries anew for
each resource, one after the other, 4 s each (`maxRetries` is not for this); here all get the first answer.

It is started by the engine: vault.py <address of the engine>.
"""

import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

# Not this directory: the docker.py in it is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from offline.plugins.base import (  # noqa: E402
    CALL,
    Found,
    IncompleteError,
    Input,
    Plugin,
    PluginError,
    Resource,
    say,
    serve,
)
from offline.plugins.protocol import UNKNOWN, Properties, engine_pb2  # noqa: E402

WARNING = engine_pb2.LogSeverity.WARNING

NOT_FOUND = 404
UNTRUSTED = (18, 19, 20, 21)
"""OpenSSL's codes of a certificate whose issuer is not known."""
DEPRECATED = (
    "The vault_token resource is maintained for legacy persistence; for better security and batch token support, use ephemeral "
    '"vault_token" instead.'
)
SETTINGS = {
    *("address", "token", "namespace", "caCertFile", "skipTlsVerify"),
    *("skipChildToken", "tokenName", "maxLeaseTtlSeconds", "maxRetries", "version"),
}


class AnswerError(PluginError):
    """Vault refused."""

    def __init__(self, request: str, code: int, errors: list[str], namespace: str) -> None:
        where = f"Namespace: {namespace}\n" if namespace else ""
        reasons = "\n".join(f"* {text}" for text in errors)
        super().__init__(f"Error making API request.\n\n{where}URL: {request}\nCode: {code}. Errors:\n\n{reasons}")
        self.code = code
        self.errors = errors


class DistrustError(PluginError):
    """The server is not the one that it should be: trying again is of no use."""


class Vault:
    """A session with the server, opened by the first call."""

    def __init__(self, settings: Properties) -> None:
        self._url = urlsplit(_setting(settings, "address", "VAULT_ADDR"))
        self._namespace = _setting(settings, "namespace", "VAULT_NAMESPACE").strip("/")
        self._retries = int(_setting(settings, "maxRetries", "VAULT_MAX_RETRIES") or 2)
        self._settings = settings
        self._token = ""
        self._refusal: PluginError | None = None
        self._opening = threading.Lock()
        self._tls = self._trust(settings) if self._url.scheme == "https" else None

    @staticmethod
    def _trust(settings: Properties) -> ssl.SSLContext:
        ca = _setting(settings, "caCertFile", "VAULT_CACERT")
        try:
            context = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise PluginError(
                f"the certificates in {ca} (vault:caCertFile, VAULT_CACERT) cannot be used: {error}"
            ) from error
        if _setting(settings, "skipTlsVerify", "VAULT_SKIP_VERIFY") in ("true", "1"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def __call__(self, method: str, path: str, body: Properties | None = None, namespace: str | None = None) -> Any:
        """Send a request; the JSON of the answer, or None where the answer is empty."""
        with self._opening:
            if not self._token and not self._refusal:
                try:
                    self._token = self._open()
                except PluginError as error:
                    self._refusal = error  # for the calls that wait here too, and would wait for its retries in turn
        if self._refusal:
            raise self._refusal
        return self._send(method, path, body, namespace, self._token)

    def find(self, path: str, namespace: str | None) -> Any:
        """Get what may not exist: None then."""
        try:
            return self("GET", path, namespace=namespace)
        except AnswerError as error:
            if error.code == NOT_FOUND:
                return None
            raise PluginError(f"error reading from Vault: {error}") from error

    def _open(self) -> str:
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise PluginError("failed to configure Vault address")
        own = Path.home() / ".vault-token"
        token = _setting(self._settings, "token", "VAULT_TOKEN")
        if not token and own.exists():
            token = own.read_text().strip()
        if not token:
            raise PluginError("no vault token set on Client")
        try:
            self._send("GET", "auth/token/lookup-self", None, None, token)
        except PluginError as error:
            raise PluginError(f"failed to lookup token, err={error}") from error
        if _setting(self._settings, "skipChildToken", "TERRAFORM_VAULT_SKIP_CHILD_TOKEN") in ("true", "1"):
            return token
        life = f"{_setting(self._settings, 'maxLeaseTtlSeconds', 'TERRAFORM_VAULT_MAX_TTL') or 1200}s"
        name = _setting(self._settings, "tokenName", "VAULT_TOKEN_NAME") or "terraform"
        child = {"display_name": name, "ttl": life, "explicit_max_ttl": life, "renewable": False}
        try:
            return str(self._send("POST", "auth/token/create", child, None, token)["auth"]["client_token"])
        except PluginError as error:
            raise PluginError(f"failed to create limited child token: {error}") from error

    def _send(self, method: str, path: str, body: Properties | None, namespace: str | None, token: str) -> Any:
        """Send it, and again where the server is sealed, overloaded or not there, as often as is set."""
        for attempt in range(self._retries + 1):
            try:
                return self._send_once(method, path, body, namespace, token)
            except DistrustError:
                raise
            except PluginError as error:
                gone = not isinstance(error, AnswerError) or error.code >= http.client.INTERNAL_SERVER_ERROR
                if attempt == self._retries or not gone:
                    raise
                time.sleep(1 + attempt / 2)
        raise AssertionError

    def _send_once(self, method: str, path: str, body: Properties | None, namespace: str | None, token: str) -> Any:
        target = f"{self._url.path.rstrip('/')}/v1/{quote(path)}"
        url = f"{self._url.scheme}://{self._url.netloc}{target}"
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
        where = "/".join(filter(None, (self._namespace, (namespace or "").strip("/"))))
        if where:
            headers["X-Vault-Namespace"] = where
        connection = self._connect()
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        except ssl.SSLCertVerificationError as error:
            why = "certificate signed by unknown authority" if error.verify_code in UNTRUSTED else error.verify_message
            raise DistrustError(f'{method.title()} "{url}": tls: failed to verify certificate: x509: {why}') from error
        except (OSError, http.client.HTTPException) as error:
            raise PluginError(f'{method.title()} "{url}": {self._worded(error)}') from error
        finally:
            connection.close()
        try:
            told = json.loads(content) if content else None
        except ValueError:
            told = {"errors": ["its answer is not Vault's"]}
        if answer.status >= http.client.MULTIPLE_CHOICES:
            # A soft-deleted secret answers 404 and has its metadata with it.
            if answer.status == NOT_FOUND and isinstance(told, Mapping) and told.get("data"):
                return told
            raise AnswerError(f"{method} {url}", answer.status, list((told or {}).get("errors") or []), where)
        return told

    def _worded(self, error: Exception) -> str:
        """As Go says it."""
        match error:
            case socket.gaierror():
                return f"dial tcp: lookup {self._url.hostname}: no such host"
            case ConnectionError(strerror=str(why)) if why:
                return f"dial tcp {self._url.netloc}: connect: {why.lower()}"
        return str(error)

    def _connect(self) -> http.client.HTTPConnection:
        host = str(self._url.hostname)
        if self._tls:
            return http.client.HTTPSConnection(host, self._url.port, timeout=60, context=self._tls)
        return http.client.HTTPConnection(host, self._url.port, timeout=60)


def _setting(settings: Properties, name: str, variable: str) -> str:
    """Take a setting of the provider, else of the environment; Pulumi writes booleans and numbers as strings or not."""
    value = settings.get(name)
    if value is None:
        return os.environ.get(variable, "")
    return value if isinstance(value, str) else json.dumps(value)


class VaultResource(Resource):
    def __init__(self, vault: Vault) -> None:
        self._vault = vault


class Mount(VaultResource):
    inputs: ClassVar = {
        "path": Input(),
        "type": Input(replaces=True),
        "description": Input(),
        "options": Input(),
        "defaultLeaseTtlSeconds": Input(computed=True),
        "maxLeaseTtlSeconds": Input(computed=True),
        "forceNoCache": Input(computed=True),
        "sealWrap": Input(computed=True, replaces=True),
        "externalEntropyAccess": Input(replaces=True),
        "local": Input(replaces=True),
        "namespace": Input(replaces=True),
    }
    outputs = ("accessor",)
    emptied: ClassVar = {
        **{key: [] for key in ("allowedManagedKeys", "allowedResponseHeaders")},
        **{key: [] for key in ("delegatedAuthAccessors", "passthroughRequestHeaders")},
        "options": {},
    }

    def create(self, inputs: Properties) -> Found:
        mount = {
            "type": inputs["type"],
            "description": inputs.get("description") or "",
            "options": inputs.get("options") or {},
            "local": inputs.get("local") or False,
            "seal_wrap": inputs.get("sealWrap") or False,
            "external_entropy_access": inputs.get("externalEntropyAccess") or False,
            "config": self._lives(inputs) | {"force_no_cache": inputs.get("forceNoCache") or False},
        }
        try:
            self._vault("POST", f"sys/mounts/{inputs['path']}", mount, inputs.get("namespace"))
        except AnswerError as error:
            raise PluginError(f"error writing to Vault: {error}") from error
        return Found(inputs["path"], {})

    def read(self, identity: str, state: Properties) -> Found | None:
        path = state.get("path") or identity  # moved by an update, which cannot tell the engine a new id
        try:
            mount = self._vault("GET", f"sys/mounts/{path}", namespace=state.get("namespace"))["data"]
        except AnswerError as error:
            if error.code == NOT_FOUND or any("No secret engine mount at" in text for text in error.errors):
                return None
            raise
        kind, options = mount["type"], mount["options"] or {}
        if state.get("type") == "kv-v2" and kind == "kv" and options.get("version") == "2":
            kind = "kv-v2"  # an alias, which Vault resolves
            if not (state.get("options") or {}).get("version"):
                options.pop("version")
        return Found(
            path,
            {
                "path": path,
                "type": kind,
                "description": mount["description"],
                "options": options,
                **{
                    ours: mount["config"].get(theirs) or []
                    for ours, theirs in (
                        ("auditNonHmacRequestKeys", "audit_non_hmac_request_keys"),
                        ("auditNonHmacResponseKeys", "audit_non_hmac_response_keys"),
                    )
                },
                "identityTokenKey": mount["config"].get("identity_token_key") or "",
                "listingVisibility": mount["config"].get("listing_visibility") or "",
                "defaultLeaseTtlSeconds": mount["config"]["default_lease_ttl"],
                "maxLeaseTtlSeconds": mount["config"]["max_lease_ttl"],
                "forceNoCache": mount["config"]["force_no_cache"],
                "sealWrap": mount["seal_wrap"],
                "externalEntropyAccess": mount["external_entropy_access"],
                "local": mount["local"],
                "namespace": state.get("namespace"),
                "accessor": mount["accessor"],
            },
        )

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        path, namespace = inputs["path"], inputs.get("namespace")
        current = old.get("path") or identity
        tune = self._lives(old | inputs) | {
            "options": inputs.get("options") or {},
            "description": inputs.get("description") or "",
        }
        try:
            if current != path and self.read(current, {**old, "path": current}):
                self._move(current, path, namespace)
            self._vault("POST", f"sys/mounts/{path}/tune", tune, namespace)
        except AnswerError as error:
            raise PluginError(f"error updating Vault: {error}") from error
        return Found(str(path), {})

    def delete(self, identity: str, state: Properties) -> None:
        try:
            self._vault("DELETE", f"sys/mounts/{state.get('path') or identity}", namespace=state.get("namespace"))
        except AnswerError as error:
            raise PluginError(f"error deleting from Vault: {error}") from error

    def _move(self, current: str, path: str, namespace: str | None) -> None:
        moving = self._vault("POST", "sys/remount", {"from": current, "to": path}, namespace)["data"]["migration_id"]
        while (status := self._moved(moving, namespace)) not in ("success", "failure"):
            time.sleep(0.05)
        if status == "failure":
            raise PluginError(
                f"error remounting in Vault: {current} could not be moved to {path}; Vault's log says why"
            )

    def _moved(self, moving: str, namespace: str | None) -> str:
        answer = self._vault("GET", f"sys/remount/status/{moving}", namespace=namespace)
        return str(answer["data"]["migration_info"]["status"])

    @staticmethod
    def _lives(inputs: Properties) -> Properties:
        return {
            "default_lease_ttl": f"{inputs.get('defaultLeaseTtlSeconds') or 0}s",
            "max_lease_ttl": f"{inputs.get('maxLeaseTtlSeconds') or 0}s",
        }


class Policy(VaultResource):
    inputs: ClassVar = {
        "name": Input(replaces=True),
        "policy": Input(),
        "allowOverwrite": Input(computed=True),
        "namespace": Input(replaces=True),
    }
    named_by = "name"

    def create(self, inputs: Properties) -> Found:
        name = inputs["name"]
        if inputs.get("allowOverwrite") is False and (found := self.read(name, inputs)) and found.outputs["policy"]:
            told = "already exists; use terraform import to manage it or set allow_overwrite = true"
            raise PluginError(f'policy "{name}" {told}')
        return self.update(name, inputs, {})

    def read(self, identity: str, state: Properties) -> Found:
        answer = self._vault.find(f"sys/policies/acl/{identity}", state.get("namespace"))
        policy = answer["data"]["policy"] if answer else ""  # so one that has gone is planned as an update
        return Found(identity, state | {"name": identity, "policy": policy})

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:  # noqa: ARG002
        try:
            self._vault("PUT", f"sys/policies/acl/{identity}", {"policy": inputs["policy"]}, inputs.get("namespace"))
        except AnswerError as error:
            raise PluginError(f"error writing to Vault: {error}") from error
        return Found(identity, {})

    def delete(self, identity: str, state: Properties) -> None:
        try:
            self._vault("DELETE", f"sys/policies/acl/{identity}", namespace=state.get("namespace"))
        except AnswerError as error:
            raise PluginError(f"error deleting from Vault: {error}") from error


class Token(VaultResource):
    inputs: ClassVar = {
        "roleName": Input(replaces=True),
        "policies": Input(replaces=True, canonical=sorted),
        "noParent": Input(replaces=True, computed=True),
        "noDefaultPolicy": Input(replaces=True),
        "renewable": Input(replaces=True, computed=True),
        "ttl": Input(replaces=True),
        "explicitMaxTtl": Input(replaces=True),
        "displayName": Input(replaces=True, default="token"),
        "numUses": Input(replaces=True, computed=True),
        "period": Input(replaces=True),
        "metadata": Input(replaces=True),
        "renewMinLease": Input(),
        "renewIncrement": Input(),
        "namespace": Input(replaces=True),
    }
    outputs = ("clientToken", "leaseDuration", "leaseStarted", "wrappedToken", "wrappingAccessor")
    emptied: ClassVar = {"metadata": {}}
    secrets = ("clientToken", "wrappedToken", "wrappingAccessor")
    VAULT_NAMES: ClassVar = {
        "policies": "policies",
        "ttl": "ttl",
        "explicitMaxTtl": "explicit_max_ttl",
        "period": "period",
        "noParent": "no_parent",
        "noDefaultPolicy": "no_default_policy",
        "displayName": "display_name",
        "numUses": "num_uses",
        "renewable": "renewable",
        "metadata": "meta",
    }

    def check(self, inputs: Properties) -> Iterator[tuple[str, str]]:
        del inputs
        say(f"{CALL.urn} verification warning: Deprecated Resource: {DEPRECATED}", WARNING)
        yield from ()

    def create(self, inputs: Properties) -> Found:
        wanted = {theirs: inputs[ours] for ours, theirs in self.VAULT_NAMES.items() if inputs.get(ours) is not None}
        path = f"auth/token/create/{inputs['roleName']}" if inputs.get("roleName") else "auth/token/create"
        try:
            made = self._vault("POST", path, wanted, inputs.get("namespace"))["auth"]
        except AnswerError as error:
            raise PluginError(f"error creating token: {error}") from error
        return Found(made["accessor"], {"clientToken": made["client_token"]})

    def read(self, identity: str, state: Properties) -> Found | None:
        namespace = state.get("namespace")
        try:
            token = self._vault("POST", "auth/token/lookup-accessor", {"accessor": identity}, namespace)["data"]
        except AnswerError:
            return None
        issued, expires = (datetime.fromisoformat(token[key]) for key in ("issue_time", "expire_time"))
        known = {
            **dict.fromkeys(("wrappedToken", "wrappingAccessor")),
            **state,
            "policies": sorted(name for name in token["policies"] if name != "default"),
            "noParent": token["orphan"],
            "renewable": token["renewable"],
            "displayName": token["display_name"].removeprefix("token-"),
            "numUses": token["num_uses"],
            "metadata": token["meta"],
            "leaseStarted": _written(issued),
            "leaseDuration": int((expires - issued).total_seconds()),
        }
        left = (expires - datetime.now(UTC)).total_seconds()
        secret = state.get("clientToken")
        if secret and token["renewable"] and left > 0 and int(left) <= (state.get("renewMinLease") or 0):
            increment = state.get("renewIncrement") or known["leaseDuration"]
            try:
                self._vault("POST", "auth/token/renew", {"token": secret, "increment": increment}, namespace)
            except AnswerError:
                return None
            # The plugin looks for the new duration in the wrong part of the answer; the next read has it right.
            known |= {"leaseDuration": 0, "leaseStarted": _written(datetime.now(UTC))}
        return Found(identity, known)

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:  # noqa: ARG002
        return Found(identity, {})  # the two that can change take effect when it is read

    def delete(self, identity: str, state: Properties) -> None:
        try:
            self._vault("POST", "auth/token/revoke-accessor", {"accessor": identity}, state.get("namespace"))
        except AnswerError as error:
            raise PluginError(f'error deleting token "{identity}": {error}') from error


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compact(text: str) -> str:
    """Write JSON as Go's encoder does, so that spacing and order are no difference."""
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class SecretV2(VaultResource):
    inputs: ClassVar = {
        "mount": Input(replaces=True),
        "name": Input(replaces=True),
        "dataJson": Input(canonical=_compact),
        "cas": Input(),
        "options": Input(),
        "disableRead": Input(),
        "deleteAllVersions": Input(),
        "customMetadata": Input(computed=True),
        "namespace": Input(replaces=True),
    }
    outputs = ("data", "metadata", "path")
    secrets = ("data", "dataJson")
    named_by = "name"
    METADATA: ClassVar = {
        "maxVersions": "max_versions",
        "casRequired": "cas_required",
        "deleteVersionAfter": "delete_version_after",
        "data": "custom_metadata",
    }

    def check(self, inputs: Properties) -> Iterator[tuple[str, str]]:
        text = inputs.get("dataJson")
        if text is None:
            yield "dataJson", "Missing required argument. The argument is required, but no definition was found."
        elif text != UNKNOWN and (wrong := _mistake(text)):
            # Not as a mistake of `dataJson`: the engine would show its value.
            yield "", f"{wrong}. Examine values at '{CALL.urn.rpartition('::')[2]}.dataJson'."

    def create(self, inputs: Properties) -> Found:
        path = f"{inputs['mount']}/data/{inputs['name']}"
        namespace = inputs.get("namespace")
        written = {"data": json.loads(inputs["dataJson"]), "options": inputs.get("options") or {}}
        if inputs.get("cas"):
            written["options"] = {**written["options"], "cas": inputs["cas"]}
        for attempt in range(60):
            try:
                self._vault("PUT", path, written, namespace)
                break
            except AnswerError as error:
                # A new mount is unavailable "for a brief period".
                if attempt == 59 or not any("pgrading" in text for text in error.errors):  # noqa: PLR2004
                    raise PluginError(f'error writing to path "{path}", err={error}') from error
                time.sleep(0.1)
        if declared := inputs.get("customMetadata"):
            described = {theirs: declared[ours] for ours, theirs in self.METADATA.items() if declared.get(ours)}
            try:
                self._vault("PUT", self._metadata_path(path), described, namespace)
            except AnswerError as error:
                raise IncompleteError(
                    f"error writing custom metadata to {self._metadata_path(path)}, err={error}", path, inputs
                ) from error
        return Found(path, {})

    def read(self, identity: str, state: Properties) -> Found | None:
        mount, _, name = identity.partition("/data/")
        known: Properties = {"disableRead": False, "deleteAllVersions": False} | state
        known |= {"path": identity, "mount": mount, "name": name}
        if state.get("dataJson"):
            known["dataJson"] = _compact(state["dataJson"])
        if state.get("disableRead"):
            return Found(identity, known)
        answer = self._vault.find(identity, state.get("namespace"))
        if answer is None:
            return None
        # The value itself is not looked at: one changed by somebody else is no drift.
        metadata = answer["data"]["metadata"]
        known["data"] = {}
        known["metadata"] = {
            key: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            for key, value in metadata.items()
        }
        described = self._vault.find(self._metadata_path(identity), state.get("namespace"))
        if described:
            about = described["data"]
            known["customMetadata"] = {ours: about.get(theirs) for ours, theirs in self.METADATA.items()} | {
                "data": about.get("custom_metadata") or {},
                "deleteVersionAfter": _seconds(about["delete_version_after"]),
            }
        return Found(identity, known)

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:  # noqa: ARG002
        self.create(inputs)
        return Found(identity, {})

    def delete(self, identity: str, state: Properties) -> None:
        path = self._metadata_path(identity) if state.get("deleteAllVersions") else identity
        try:
            self._vault("DELETE", path, namespace=state.get("namespace"))
        except AnswerError as error:
            quoted = json.dumps(str(error), ensure_ascii=False)
            raise PluginError(f'error deleting "{path}" from Vault: {quoted}') from error

    @staticmethod
    def _metadata_path(path: str) -> str:
        return path.replace("/data/", "/metadata/", 1)


def _mistake(text: str) -> str:
    """Why it is no JSON object, as far as Go says it without quoting it; "" where it is one."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return (
            "unexpected end of JSON input" if error.pos >= len(text) or "Unterminated" in error.msg else "invalid JSON"
        )
    kinds = {str: "string", bool: "bool", int: "number", float: "number", list: "array"}
    if value is None or isinstance(value, dict):
        return ""
    return f"json: cannot unmarshal {kinds[type(value)]} into Go value of type map[string]interface {{}}"


def _seconds(duration: str) -> int:
    """Read Go's "3h12m10s"."""
    total, number = 0.0, ""
    for letter in duration:
        if letter in "hms":
            total += float(number) * {"h": 3600, "m": 60, "s": 1}[letter]
            number = ""
        else:
            number += letter
    return int(total)


class VaultPlugin(Plugin):
    name = "vault"

    def configure(self, settings: Properties) -> Mapping[str, Resource]:
        unserved = {key for key, value in settings.items() if value and key not in SETTINGS}
        if unserved:
            raise PluginError(
                f"the offline stand-in for pulumi-vault does not serve vault:{', vault:'.join(sorted(unserved))}"
            )
        vault = Vault(settings)
        return {
            "vault:index/mount:Mount": Mount(vault),
            "vault:index/policy:Policy": Policy(vault),
            "vault:index/token:Token": Token(vault),
            "vault:kv/secretV2:SecretV2": SecretV2(vault),
        }


if __name__ == "__main__":
    serve(VaultPlugin())
