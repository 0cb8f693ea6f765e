"""A Python language host for a Pulumi engine that came without one: it runs ``__main__.py`` when the engine asks.

The official host is a Go program that starts ``pulumi-language-python-exec``; its Go module cannot be had from the
module proxy (only its Python half can). This one is the SDK's own server for inline programs, which the Automation API
uses, pointed at a file. Differences: programs run in this process, the interpreter is the one this runs on, and
``pulumi install`` and ``pulumi convert`` are not served.
"""

import os
import runpy
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pulumi
from pulumi.automation import PulumiFn, _server
from pulumi.runtime import run_in_stack
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import language_pb2_grpc

WATCH = Path(__file__).resolve().parents[1] / "components" / "engine_watch.py"
"""Not imported: this lies in a project whose modules are not the program's."""


TOLD = 32
"""The exit status of a program that has told what is wrong: the official host adds nothing to it."""


class LanguageHost(_server.LanguageServer):
    """Runs the program once: the engine starts a host for the preview and another one for the update."""

    told = False
    """Whether the program ended so."""

    def __init__(self) -> None:
        super().__init__(self._program)
        self._directory = Path()

    def Run(self, request: Any, context: Any) -> Any:
        self._directory = Path(request.info.program_directory).resolve()
        os.chdir(self._directory)
        if str(self._directory) not in sys.path:
            sys.path.insert(0, str(self._directory))
        result: Any = super().Run(request, context)  # type: ignore[no-untyped-call]
        # Whatever went wrong has been logged. `bail` says so; with `error` the engine would print it once more.
        result.bail, result.error = bool(result.error) or self.told, ""
        return result

    def _program(self) -> None:
        runpy.run_path(str(self._directory / "__main__.py"), run_name="__main__")


def _is_in(directory: Path, file: str) -> bool:
    """Whether a source file is the program's own: not this one, nor a package's; both may lie in its directory."""
    return file != __file__ and Path(file).is_relative_to(directory) and not Path(file).is_relative_to(sys.prefix)


async def _run_in_stack(program: PulumiFn) -> None:
    """Run it with the official host's words for what went wrong: the SDK's server would show its own frames too."""
    try:
        await run_in_stack(program)
    except (pulumi.RunError, grpc.RpcError):
        raise
    except SystemExit as error:
        LanguageHost.told = error.code == TOLD
        if LanguageHost.told:
            return
        if error.code not in (None, 0):
            raise pulumi.RunError(f"the program exited: {error.code}") from None
    except Exception as error:  # noqa: BLE001
        raise pulumi.RunError(f"Program failed with an unhandled exception:\n{_user_traceback(error)}") from None


def _user_traceback(error: Exception) -> str:
    frames = error.__traceback__
    while frames and not _is_in(Path.cwd(), frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))


def main() -> None:
    _server.run_in_stack = _run_in_stack  # type: ignore[attr-defined,assignment]
    runpy.run_path(str(WATCH))["end_with_engine"](sys.argv[-1])
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=_GRPC_CHANNEL_OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    stopped.wait()
    os._exit(0)  # a program still running waits for an engine that is gone


if __name__ == "__main__":
    main()
