"""Starts Pulumi's process for dynamic providers so that it ends with its engine from its first moment on, and hears of Ctrl-C.

Pulumi's own `python -m pulumi.dynamic` waits for ever when its engine goes before it has configured a provider: until then, none
of a stack's code is loaded that could watch. And it takes the engine's word that somebody has pressed Ctrl-C without telling
anybody. Only an engine of this project's own uses this.
"""

import gc
import runpy
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

gc.set_threshold(1_000_000)  # most of a short run is imports, and a tenth of theirs was to look for garbage

from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]  # noqa: E402

WATCH = Path(__file__).resolve().parents[1] / "components" / "tde_replication" / "engine_watch.py"
PACKAGE = "tde_replication"
RECONCILERS = (f"{PACKAGE}.postgres.resources", f"{PACKAGE}.vault.resources")


def cancel(_request: Any, _context: Any) -> Empty:
    """End the waits of this project's own providers, where one is loaded."""
    if waiting := sys.modules.get("tde_replication.waiting"):
        waiting.interrupt()
    return Empty()


def import_early() -> None:
    """Import what the first call would, while the engine starts other plugins: it does that one after the other."""
    program = Path("__main__.py")
    if not program.is_file() or PACKAGE not in program.read_text(errors="replace"):
        return
    for name in RECONCILERS:
        with suppress(Exception):  # the call that needs it tells what is wrong
            import_module(name)


def main() -> None:
    runpy.run_path(str(WATCH))["end_with_engine"](sys.argv[1])
    sys.path[0] = str(Path.cwd())  # as `python -m` has it
    from pulumi.runtime.proto import provider_pb2_grpc  # noqa: PLC0415 - not before the engine is watched

    register = provider_pb2_grpc.add_ResourceProviderServicer_to_server

    def register_hearing(servicer: Any, server: Any) -> None:
        servicer.Cancel = cancel
        register(servicer, server)
        threading.Thread(target=import_early, daemon=True).start()

    provider_pb2_grpc.add_ResourceProviderServicer_to_server = register_hearing
    runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
