"""What the stand-ins for Pulumi's resource plugins share: serving a table of resource types over the engine's protocol.

A stand-in declares each type as a `Resource`: its inputs and what a change of each means, and how one is created, read,
updated and deleted. Everything else is here: comparing, previews, secrets, what happens when a step fails half-way.
"""

import os
import re
import secrets
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, wraps
from importlib.metadata import version
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import grpc
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]

from offline.plugins.protocol import (
    UNKNOWN,
    Properties,
    Secret,
    decode,
    encode,
    engine_pb2,
    engine_pb2_grpc,
    has_unknown,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)
from tde_replication.engine_watch import end_with_engine

if TYPE_CHECKING:
    Kind: TypeAlias = provider_pb2.PropertyDiff.Kind.ValueType
ADD, DELETE, UPDATE = (
    provider_pb2.PropertyDiff.ADD,
    provider_pb2.PropertyDiff.DELETE,
    provider_pb2.PropertyDiff.UPDATE,
)
REPLACING = {
    ADD: provider_pb2.PropertyDiff.ADD_REPLACE,
    DELETE: provider_pb2.PropertyDiff.DELETE_REPLACE,
    UPDATE: provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


DEFAULTS = "__defaults"
"""The input in which a plugin that consists of a Terraform provider notes the names of those that it filled in."""


class PluginError(Exception):
    """What went wrong, in the words of the plugin."""


class IncompleteError(PluginError):
    """The object exists but is not as declared: the engine keeps it, and acts on it at the next update."""

    def __init__(self, cause: object, identity: str, properties: Properties) -> None:
        super().__init__(str(cause))
        self.identity = identity
        self.properties = properties


@dataclass(frozen=True)
class Input:
    """How one input is compared, and what its change means."""

    replaces: bool = False
    """A change of it makes a new object; else it is updated in place."""
    computed: bool = False
    """Where it is left out, the server's value stands, whatever it is."""
    default: Any = None
    whole: bool = False
    """What differs in it is not told apart."""
    canonical: Callable[[Any], Any] = lambda value: value
    """Brings two spellings of the same value together."""

    def spelled(self, value: Any) -> Any:
        return value if value is None or has_unknown(value) else self.canonical(value)


class Found(NamedTuple):
    """An object as it is: its id, and all its outputs."""

    identity: str
    outputs: Properties


class Resource(ABC):
    """One resource type. Properties are plain Python values, named as in Pulumi's schema."""

    inputs: ClassVar[Mapping[str, Input]]
    outputs: ClassVar[tuple[str, ...]] = ()
    """Those that are no inputs too."""
    secrets: ClassVar[tuple[str, ...]] = ()
    """Those that the engine is to encrypt, whether or not an input of that name is a secret."""
    delete_before_replace: ClassVar[bool] = False
    named_by: ClassVar[str] = ""
    """The input that gets a name of Pulumi's making where it is left out."""
    emptied: ClassVar[Mapping[str, Any]] = {}
    """Those that are null once it was made where nothing is declared, with the empty value that the first `read` finds."""
    noted: ClassVar[tuple[str, ...]] = ()
    """Inputs of which an update takes note and no more: the next `read` finds them as they were."""
    terraform: ClassVar[bool] = True
    """Whether the plugin consists of a Terraform provider: its types do not tell nothing, null, "", 0, false, [] and {} apart,
    what a failed update declared stands in the state all the same, and an error is told twice."""

    def identify(self, name: str) -> str:  # noqa: ARG002
        """The id where it comes of the resource's name, so that a preview has one too; else ""."""
        return ""

    def fill(self, inputs: Properties) -> Properties:
        """Set the defaults that stand deeper than `Input.default`."""
        return inputs

    def settle(self, value: Any) -> Any:
        return _settled(value) if self.terraform else value

    def show(self, identity: str, outputs: Properties, *, read: bool = False) -> Any:
        """Its outputs for the engine, after it was made or changed, or `read`."""
        empty = {key: outputs.get(key) or (value if read else None) for key, value in self.emptied.items()}
        return self.encode(outputs | empty | ({"id": identity} if self.terraform else {}))

    def replaces_in_place(self, declared: Properties) -> bool:
        """Whether a replacement deletes the old one first: also where it would have the same name, for a person chose that."""
        filled_in = declared.get(DEFAULTS)
        return self.delete_before_replace or bool(
            self.named_by and isinstance(filled_in, list) and self.named_by not in filled_in
        )

    def encode(self, properties: Properties) -> Any:
        hidden = {key: Secret(properties[key]) for key in self.secrets if properties.get(key) is not None}
        return encode(properties | hidden)

    def check(self, inputs: Properties) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Yield what is wrong, as input and reason."""
        yield from ()

    @abstractmethod
    def create(self, inputs: Properties) -> Found:
        """Make it; the outputs are those that `read` cannot know."""

    @abstractmethod
    def read(self, identity: str, state: Properties) -> Found | None:
        """Find it, or None where it has gone. `state` is what was known last, or was just declared."""

    @abstractmethod
    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        """Make it as declared; the outputs are those that `read` cannot know."""

    @abstractmethod
    def delete(self, identity: str, state: Properties) -> None:
        """Delete it; no error where it has gone."""


def _settled(value: Any) -> Any:
    """Bring together what Terraform's types do not tell apart: nothing, null, "", 0, false, [] and {}."""
    match value:
        case Mapping():
            value = {key: settled for key, item in value.items() if (settled := _settled(item)) is not None}
        case list():
            value = [_settled(item) for item in value]
    return value or None


def differences(resource: Resource, old: Properties, new: Properties) -> dict[str, tuple["Kind", str]]:
    """Compare state with inputs: each path that differs, with its kind and its input."""
    found: dict[str, tuple[Kind, str]] = {}
    for name, declared in resource.inputs.items():
        if new.get(name) is None and declared.computed:
            continue
        was, wanted = (declared.spelled(value) for value in (old.get(name), new.get(name)))
        for path, kind in _compare(name, was, wanted, resource.settle, whole=declared.whole):
            # A plugin of Pulumi's own looks the path up, and finds no "triggers[0]": what replaces then is the SDK.
            replaces = declared.replaces and (resource.terraform or path == name)
            found[path] = (REPLACING[kind] if replaces else kind, name)
    return found


def _compare(
    path: str, was: Any, wanted: Any, settle: Callable[[Any], Any], *, whole: bool = False
) -> Iterator[tuple[str, "Kind"]]:
    if settle(was) == settle(wanted):
        return
    match was, wanted:
        case Mapping(), Mapping() | None if not whole:
            for key in was.keys() | (wanted or {}).keys():
                step = f".{key}" if re.fullmatch(r"\w+", key) else f'["{key}"]'
                yield from _compare(path + step, was.get(key), (wanted or {}).get(key), settle)
        case list(), list() if was and wanted and not whole:
            for index, (one, other) in enumerate(zip_longest(was, wanted)):
                yield from _compare(f"{path}[{index}]", one, other, settle)
        case (([] | None), _):
            yield path, ADD
        case _, ([] | None):
            yield path, DELETE
        case _:
            yield path, UPDATE


class _Call(threading.local):
    """What this thread answers to."""

    urn = ""


CALL = _Call()


@cache
def _engine() -> Any:
    return engine_pb2_grpc.EngineStub(grpc.insecure_channel(sys.argv[1]))


def say(
    text: str, severity: "engine_pb2.LogSeverity.ValueType" = engine_pb2.LogSeverity.INFO, *, ephemeral: bool = False
) -> None:
    """Show it in the row of the resource that is being worked on."""
    request = engine_pb2.LogRequest(severity=severity, message=text, urn=CALL.urn, ephemeral=ephemeral)
    with suppress(grpc.RpcError):  # the engine is going away
        _engine().Log(request)


Method: TypeAlias = Callable[[Any, Any, grpc.ServicerContext], Any]


def _answers(doing: str = "") -> Callable[[Method], Method]:
    """Give a PluginError to the engine as it expects it, without a traceback; `doing` what, as the plugin says it."""

    def decorate(method: Method) -> Method:
        @wraps(method)
        def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
            CALL.urn = getattr(request, "urn", "")
            try:
                return method(self, request, context)
            except IncompleteError as error:
                message = self.worded(f"{doing} {request.urn}: ", error)
                properties = self.resource(request).show(error.identity, error.properties)
                detail = provider_pb2.ErrorResourceInitFailed(
                    id=error.identity, properties=properties, reasons=[message]
                )
                status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message)
                status.details.add().Pack(detail)
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            except PluginError as error:
                # What was not made at all is told as it is.
                prefix = "" if doing in ("", "creating") else f"{doing} {request.urn}: "
                message = self.worded(prefix, error) if doing else str(error)
            return context.abort(grpc.StatusCode.UNKNOWN, message)

        return call

    return decorate


class Plugin(ABC, provider_pb2_grpc.ResourceProviderServicer):
    """A provider: its configuration, and its resource types by type token."""

    name: ClassVar[str]
    terraform: ClassVar[bool] = True
    resources: Mapping[str, Resource]

    def worded(self, prefix: str, error: PluginError) -> str:
        """What the engine is told: by a plugin that consists of a Terraform provider, a second time, in other words."""
        if not self.terraform:
            return str(error)
        where, who = "  sdk-v2/provider2.go:571: sdk.helper_schema", f"provider={self.name}@{self.version}"
        say(f"{where}: {error}: {who}", engine_pb2.LogSeverity.ERROR)
        return f"{prefix}1 error occurred:\n\t* {error}\n\n"

    @property
    def version(self) -> str:
        return version(f"pulumi-{self.name}")

    @abstractmethod
    def configure(self, settings: Properties) -> Mapping[str, Resource]:
        """Take over the provider's configuration, without calling anything; the resource types under it."""

    def GetPluginInfo(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        # The engine warns of a plugin that is older than the package it serves.
        return plugin_pb2.PluginInfo(version=self.version)

    def CheckConfig(self, request: Any, _context: grpc.ServicerContext) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, _context: grpc.ServicerContext) -> Any:
        old, new = decode(request.olds), decode(request.news)
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        return _difference({key: (UPDATE, key) for key in changed})

    @_answers()
    def Configure(self, request: Any, _context: grpc.ServicerContext) -> Any:
        self.resources = self.configure(decode(request.args))
        CALL.urn = ""  # the stack's row, not the provider's
        say(f"offline stand-in for pulumi-{self.name}: the plugin itself is out of reach here")
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    @_answers()
    def Check(self, request: Any, _context: grpc.ServicerContext) -> Any:
        resource, old, new = self.resource(request), decode(request.olds), decode(request.news)
        given = {key: value for key, value in new.items() if value is not None}
        filled_in = {
            key: declared.default
            for key, declared in resource.inputs.items()
            if declared.default is not None and key not in given
        }
        if resource.named_by and not given.get(resource.named_by):
            named = _name(request.urn) + "-" + secrets.token_hex(4)[:7]
            filled_in[resource.named_by] = old.get(resource.named_by) or named
        inputs = resource.fill(given | filled_in)
        if resource.terraform:
            inputs[DEFAULTS] = sorted(filled_in)
        failures = [
            (key, f"the offline stand-in for pulumi-{self.name} does not serve it")
            for key in inputs
            if key not in resource.inputs and not key.startswith("__")
        ]
        failures += resource.check(inputs)
        return provider_pb2.CheckResponse(
            inputs=resource.encode(inputs),
            failures=[provider_pb2.CheckFailure(property=key, reason=reason) for key, reason in failures],
        )

    @_answers("diffing")
    def Diff(self, request: Any, _context: grpc.ServicerContext) -> Any:
        resource, new = self.resource(request), decode(request.news)
        found = differences(resource, decode(request.olds), new)
        return _difference(found, delete_before_replace=resource.replaces_in_place(new))

    @_answers("creating")
    def Create(self, request: Any, _context: grpc.ServicerContext) -> Any:
        resource, inputs = self.resource(request), _own(request.properties)
        name = _name(request.urn)
        if request.preview:
            later = {key: UNKNOWN for key, declared in resource.inputs.items() if declared.computed}
            later |= dict.fromkeys(resource.outputs, UNKNOWN)
            shown = later | inputs if resource.terraform else inputs | later
            return provider_pb2.CreateResponse(id=resource.identify(name), properties=resource.show(UNKNOWN, shown))
        made = resource.create(inputs)
        found = _read_back(resource, made.identity or resource.identify(name), inputs | made.outputs)
        return provider_pb2.CreateResponse(id=found.identity, properties=resource.show(*found))

    @_answers("refreshing")
    def Read(self, request: Any, _context: grpc.ServicerContext) -> Any:
        resource, old = self.resource(request), decode(request.inputs)
        found = resource.read(request.id, _own(request.properties))
        if found is None:
            return provider_pb2.ReadResponse()
        inputs = dict(old)
        for key, declared in resource.inputs.items():
            value = found.outputs.get(key)
            if key not in old and old:  # not declared; without any, this is an import
                continue
            if key in old and not _differ(resource, declared, old[key], value):
                continue
            if value is None or (not old and resource.settle(value) is None):
                inputs.pop(key, None)
            else:
                inputs[key] = value
            if key in inputs.get(DEFAULTS, ()):
                inputs[DEFAULTS] = [name for name in inputs[DEFAULTS] if name != key]
        return provider_pb2.ReadResponse(
            id=found.identity, properties=resource.show(*found, read=True), inputs=resource.encode(inputs)
        )

    @_answers("updating")
    def Update(self, request: Any, _context: grpc.ServicerContext) -> Any:
        resource, old, inputs = self.resource(request), _own(request.olds), _own(request.news)
        kept = {
            key: value
            for key, value in old.items()
            if key in resource.outputs or (key in resource.inputs and resource.inputs[key].computed)
        }
        state = kept | inputs
        if request.preview:
            if not resource.terraform:
                state |= dict.fromkeys(resource.outputs, UNKNOWN)
            return provider_pb2.UpdateResponse(properties=resource.show(request.id, state))
        try:
            made = resource.update(request.id, inputs, old)
        except PluginError as error:
            if not resource.terraform:
                raise
            raise IncompleteError(error, request.id, state) from error
        found = _read_back(resource, made.identity, state | made.outputs)
        noted = {key: inputs[key] for key in resource.noted if key in inputs}
        return provider_pb2.UpdateResponse(properties=resource.show(found.identity, found.outputs | noted))

    @_answers("deleting")
    def Delete(self, request: Any, _context: grpc.ServicerContext) -> Any:
        self.resource(request).delete(request.id, _own(request.properties))
        return Empty()

    def Cancel(self, _request: Any, _context: grpc.ServicerContext) -> Any:
        return Empty()

    def resource(self, request: Any) -> Resource:
        kind = request.urn.split("::")[2].rpartition("$")[2]
        if kind not in self.resources:
            raise PluginError(f"the offline stand-in for pulumi-{self.name} does not serve {kind}")
        return self.resources[kind]


def _own(properties: Any) -> Properties:
    """Without what Pulumi and an official plugin note in a state for themselves."""
    return {key: value for key, value in decode(properties).items() if not key.startswith("__")}


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _differ(resource: Resource, declared: Input, old: Any, new: Any) -> bool:
    one, other = (resource.settle(declared.spelled(value)) for value in (old, new))
    return bool(one != other)


def _read_back(resource: Resource, identity: str, state: Properties) -> Found:
    try:
        found = resource.read(identity, state)
    except PluginError as error:
        raise IncompleteError(error, identity, state) from error
    if found is None:
        raise IncompleteError(f"{identity} has gone right after it was written", identity, state)
    return found


def _difference(found: dict[str, tuple["Kind", str]], *, delete_before_replace: bool = False) -> Any:
    replaced = sorted({name for kind, name in found.values() if kind in REPLACING.values()})
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted({name for _, name in found.values()}),
        replaces=replaced,
        deleteBeforeReplace=bool(replaced) and delete_before_replace,
        detailedDiff={path: provider_pb2.PropertyDiff(kind=kind) for path, (kind, _) in found.items()},
        hasDetailedDiff=True,
    )


def serve(plugin: Plugin) -> None:
    """Serve the engine whose address is the first argument, until it says stop or has gone."""
    end_with_engine(sys.argv[1])
    server = grpc.server(ThreadPoolExecutor(max_workers=64))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(plugin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    with suppress(KeyboardInterrupt):
        server.wait_for_termination()
    sys.stdout.flush()
    os._exit(0)  # not waiting for what a call is still waiting for
