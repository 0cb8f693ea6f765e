"""Starts Pulumi's process for dynamic providers so that it ends with its engine from its first moment on, and hears of Ctrl-C.

Pulumi's own `python -m pulumi.dynamic` waits for ever when its engine goes before it has configured a provider: until then, none
of a stack's code is loaded that could watch. And it takes the engine's word that somebody has pressed Ctrl-C without telling
anybody. Only an engine of this project's own uses this.
"""

import gc
import runpy
import sys
from pathlib import Path
from typing import Any

gc.set_threshold(1_000_000)  # most of a short run is imports, and a tenth of theirs was to look for garbage

from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]  # noqa: E402

WATCH = Path(__file__).resolve().parents[1] / "components" / "tde_replication" / "engine_watch.py"


def cancel(_request: Any, _context: Any) -> Empty:
    """End the waits of this project's own providers, where one is loaded."""
    if waiting := sys.modules.get("tde_replication.waiting"):
        waiting.interrupt()
    return Empty()


def main() -> None:
    runpy.run_path(str(WATCH))["end_with_engine"](sys.argv[1])
    sys.path[0] = str(Path.cwd())  # as `python -m` has it
    from pulumi.runtime.proto import provider_pb2_grpc  # noqa: PLC0415 - not before the engine is watched

    register = provider_pb2_grpc.add_ResourceProviderServicer_to_server

    def register_hearing(servicer: Any, server: Any) -> None:
        servicer.Cancel = cancel
        register(servicer, server)

    provider_pb2_grpc.add_ResourceProviderServicer_to_server = register_hearing
    runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
