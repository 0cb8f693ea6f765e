"""What a dynamic provider tells people while it works.

Pulumi's provider process has no connection to the engine for this (`pulumi.log` falls back to printing, which is kept and shown
again); the engine's address is its first argument.
"""

import sys
from functools import cache

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from tde_replication import engine_watch, records
from tde_replication.errors import escaped


def say(text: str, *, urn: str = "", ephemeral: bool = False) -> None:
    """Show `text` in the row of the resource `urn` (default: the stack); an ephemeral text is not kept."""
    _log(engine_pb2.LogRequest(severity=engine_pb2.INFO, message=escaped(text), urn=urn, ephemeral=ephemeral))


@cache
def tell_cost(cost: records.Cost) -> None:
    """Once: the engine asks for a diff to refresh, and again to plan."""
    record(cost)
    if cost.text:
        say(cost.text)


def record_unasked(what: str, why: str) -> None:
    record(records.Unasked(what=what, why=why))


def record(one: records.Record) -> None:
    """Write it into the engine's event stream, where `review` finds it."""
    _log(engine_pb2.LogRequest(severity=engine_pb2.DEBUG, message=records.written(one)))


def _log(request: engine_pb2.LogRequest) -> None:
    engine = _engine()
    if engine is None:
        return
    try:
        engine.Log(request)
    except grpc.RpcError:
        return  # the engine is going away; the work goes on


@cache
def end_with_engine() -> None:
    """From now on, end this process when the engine has gone: see `engine_watch`."""
    if address := _address():
        engine_watch.end_with_engine(address)


def _address() -> str | None:
    """The engine's; None in a test, or any process but the provider's."""
    return sys.argv[1] if len(sys.argv) > 1 and ":" in sys.argv[1] else None


@cache
def _engine() -> engine_pb2_grpc.EngineStub | None:
    address = _address()
    return engine_pb2_grpc.EngineStub(grpc.insecure_channel(address)) if address else None
