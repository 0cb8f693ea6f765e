"""A stand-in plugin as the engine starts and calls it: a process of its own, over gRPC."""

import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2 as messages, provider_pb2_grpc, status_pb2

PROJECT = Path(__file__).parents[2]
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"


def struct(properties: Mapping[str, Any]) -> Struct:
    made = Struct()
    made.update(properties)
    return made


class Refused(Exception):
    """What the plugin answered instead; `kept` is what it told the engine to keep all the same."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        self.kept: Any = None
        metadata: Any = error.trailing_metadata()
        for key, value in metadata or ():
            if key == "grpc-status-details-bin":
                self.kept = messages.ErrorResourceInitFailed()
                status_pb2.Status.FromString(value).details[0].Unpack(self.kept)


class Engine(engine_pb2_grpc.EngineServicer):
    """What a plugin says to the engine: each message with its severity, and whether it is shown for the moment only."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.passing: list[str] = []
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def Log(self, request: Any, _context: grpc.ServicerContext) -> Empty:  # noqa: N802
        if request.ephemeral:
            assert request.urn
            self.passing.append(request.message)
        else:
            severities = {engine_pb2.WARNING: self.warnings, engine_pb2.ERROR: self.errors}
            severities.get(request.severity, self.said).append(request.message)
        return Empty()


class Plugin:
    """`with Plugin("vault", address=…) as plugin`: started and configured."""

    def __init__(self, name: str, *, environment: Mapping[str, str] | None = None, **config: Any) -> None:
        self.name = name
        self.engine = Engine()
        self._config = config
        self._environment = {"HOME": "/nonexistent", **(environment or {})}

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(2))
        engine_pb2_grpc.add_EngineServicer_to_server(self.engine, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.process = subprocess.Popen(
            [sys.executable, PROJECT / "offline" / "plugins" / f"{self.name}.py", f"127.0.0.1:{port}"],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self._channel = grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self._channel)
        try:
            self.call("Configure", messages.ConfigureRequest(args=struct(self._config)))
        except Refused:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self.process.kill()
        self.process.communicate()
        self._server.stop(None).wait()

    def call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self.stub, method)(request, timeout=60)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def resource(self, kind: str, name: str = "it") -> "Resource":
        return Resource(self, f"urn:pulumi:dev::test::{kind}::{name}")


class Resource:
    """The calls for one resource; properties as plain dictionaries, secrets as the engine would show them."""

    def __init__(self, plugin: Plugin, urn: str) -> None:
        self._plugin = plugin
        self._urn = urn

    def _call(self, method: str, request: Any) -> Any:
        request.urn = self._urn
        return self._plugin.call(method, request)

    def check(self, new: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
        answer = self._call("Check", messages.CheckRequest(olds=struct(old or {}), news=struct(new)))
        return MessageToDict(answer.inputs), [f"{failure.property}: {failure.reason}" for failure in answer.failures]

    def diff(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Any:
        return self._call("Diff", messages.DiffRequest(id="x", olds=struct(old), news=struct(new)))

    def changes(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
        answer = self.diff(old, new)
        assert (answer.changes == messages.DiffResponse.DIFF_SOME) == bool(answer.detailedDiff)
        return {path: messages.PropertyDiff.Kind.Name(entry.kind) for path, entry in answer.detailedDiff.items()}

    def create(self, inputs: Mapping[str, Any], *, preview: bool = False) -> tuple[str, dict[str, Any]]:
        answer = self._call("Create", messages.CreateRequest(properties=struct(inputs), preview=preview))
        return answer.id, MessageToDict(answer.properties)

    def read(
        self, identity: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        answer = self._call(
            "Read", messages.ReadRequest(id=identity, properties=struct(plain(state)), inputs=struct(inputs))
        )
        return answer.id, MessageToDict(answer.properties), MessageToDict(answer.inputs)

    def update(
        self, identity: str, old: Mapping[str, Any], new: Mapping[str, Any], *, preview: bool = False
    ) -> dict[str, Any]:
        request = messages.UpdateRequest(id=identity, olds=struct(plain(old)), news=struct(new), preview=preview)
        return dict(MessageToDict(self._call("Update", request).properties))

    def delete(self, identity: str, state: Mapping[str, Any]) -> None:
        self._call("Delete", messages.DeleteRequest(id=identity, properties=struct(plain(state))))


def told(plugin: Plugin, refused: Refused) -> str:
    """Why a plugin that consists of a Terraform provider refused, which it tells twice: to a person, and to the engine."""
    found = re.fullmatch(r"(?:\w+ing urn:\S+: )?1 error occurred:\n\t\* (.*)\n\n", str(refused), re.DOTALL)
    assert found, str(refused)
    logged = f"  sdk-v2/provider2.go:571: sdk.helper_schema: {found[1]}: provider={plugin.name}@"
    assert plugin.engine.errors[-1].startswith(logged), plugin.engine.errors
    return found[1]


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def plain(value: Any) -> Any:
    """Show secrets in the clear, as the engine does to a plugin that does not accept them."""
    if isinstance(value, Mapping):
        return plain(value["value"]) if is_secret(value) else {key: plain(item) for key, item in value.items()}
    return value
