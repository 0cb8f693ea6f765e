"""What a provider tells people: to the engine that its first argument names, and to nobody where there is none."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from tde_replication import console
from tde_replication.records import Cost, read
from tde_replication.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    console._engine.cache_clear()
    yield
    console._engine.cache_clear()


@pytest.mark.parametrize("arguments", [["pytest"], ["pytest", "tests"], []])
def test_without_an_engine_nothing_happens(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    console.say("is anybody there?")
    assert capfd.readouterr() == ("", "")


class Engine(engine_pb2_grpc.EngineServicer):
    def __init__(self) -> None:
        self.told: list[engine_pb2.LogRequest] = []

    def Log(self, request: engine_pb2.LogRequest, _context: Any) -> empty_pb2.Empty:  # noqa: N802 - gRPC's name
        self.told.append(request)
        return empty_pb2.Empty()


def test_with_an_engine_it_is_told_in_the_resources_row(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    server = grpc.server(ThreadPoolExecutor(1))
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setattr(sys, "argv", ["provider", f"127.0.0.1:{port}"])
    console.say("half of it", urn="urn:it", ephemeral=True)
    said = engine.told[0]
    assert (said.message, said.urn, said.ephemeral) == ("half of it", "urn:it", True)
    console.record(Cost(kind="reload"))
    message, severity = engine.told[1].message, engine.told[1].severity
    assert (read(message), severity) == (Cost(kind="reload"), engine_pb2.DEBUG), "shown to nobody"
    server.stop(None).wait()
    console.say("the engine is gone: no error")
    assert len(engine.told) == 2


WATCHER = "import sys, time; from tde_replication import console; console.end_with_engine(); time.sleep(60)"


def test_it_ends_with_an_engine_that_was_killed_while_it_took_the_connection() -> None:
    """Such a connection is open on this side only: with TCP_DEFER_ACCEPT the kernel leaves it so for any."""
    with socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        provider = subprocess.Popen([sys.executable, "-c", WATCHER, f"127.0.0.1:{port}"], cwd=ROOT)
        watched = psutil.Process(provider.pid)
        assert until(lambda: any(c.status == "ESTABLISHED" for c in watched.net_connections()), seconds=20)
    try:
        assert provider.wait(timeout=20) == 1
    finally:
        provider.kill()
