"""What a dynamic provider tells people while it works.

Pulumi's provider process has no connection to the engine for this (`pulumi.log` falls back to printing, which is kept and shown
again); the engine's address is its first argument.
"""

import os
import socket
import sys
import threading
from functools import cache

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

KEEPALIVE = 2
"""Seconds of silence after which the engine's side is asked whether it is there, between questions, and how many."""


def say(text: str, *, urn: str = "", ephemeral: bool = False) -> None:
    """Show `text` in the row of the resource `urn` (the stack's where there is none); what is ephemeral is not kept."""
    engine = _engine()
    if engine is None:
        return
    request = engine_pb2.LogRequest(severity=engine_pb2.INFO, message=text, urn=urn, ephemeral=ephemeral)
    try:
        engine.Log(request)
    except grpc.RpcError:
        return  # the engine is going away; the work goes on


@cache
def end_with_engine() -> None:
    """From now on, end this process when the engine has gone, however it went.

    Pulumi's own never would. Its work would be in no state, and in the way of the next `up`, which does it again.
    """
    if address := _address():
        threading.Thread(target=_watch, args=address.rsplit(":", 1), daemon=True).start()


def _watch(host: str, port: str) -> None:
    while True:
        try:
            with socket.create_connection((host, int(port))) as connection:
                connection.settimeout(None)
                # An engine that is killed while it takes this connection leaves it open on our side: only being asked, its
                # machine says that nobody is there.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
                    connection.setsockopt(socket.IPPROTO_TCP, option, KEEPALIVE)
                while connection.recv(4096):
                    pass
        except ConnectionResetError:
            continue
        except OSError:
            os._exit(1)


def _address() -> str | None:
    """The engine's; None in a test, or any process but the provider's."""
    return sys.argv[1] if len(sys.argv) > 1 and ":" in sys.argv[1] else None


@cache
def _engine() -> engine_pb2_grpc.EngineStub | None:
    address = _address()
    return engine_pb2_grpc.EngineStub(grpc.insecure_channel(address)) if address else None
