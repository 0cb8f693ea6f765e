"""A Python language host for a Pulumi engine that came without one: it runs ``__main__.py`` when the engine asks.

The official host is a Go program that starts ``pulumi-language-python-exec``; its Go module cannot be had from the
module proxy (only its Python half can). Differences: programs run in this process, the interpreter is the one this runs on, and
``pulumi install`` and ``pulumi convert`` are not served.
"""

import gc
import os
import platform
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

gc.set_threshold(1_000_000)  # most of a short run is imports, and a tenth of theirs was to look for garbage

import grpc  # noqa: E402

# Not imported: this lies in a project whose modules are not the program's.
HERE = Path(__file__).resolve().parent
WATCH = HERE.parent / "components" / "tde_replication" / "engine_watch.py"
SDK = runpy.run_path(str(HERE / "sdk.py"))

SDK["skip"]()  # for most commands need no more: the program imports the rest

from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2  # noqa: E402

OPTIONS = [("grpc.max_receive_message_length", 400 * 2**20)]
"""As the SDK's own servers have it, in bytes."""


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Answers what the engine asks before it runs a program, and runs that."""

    def About(self, _request: Any, _context: Any) -> Any:
        return language_pb2.AboutResponse(executable=sys.executable, version=platform.python_version())

    def GetRequiredPlugins(self, _request: Any, _context: Any) -> Any:
        return language_pb2.GetRequiredPluginsResponse()

    def GetRequiredPackages(self, _request: Any, _context: Any) -> Any:
        return language_pb2.GetRequiredPackagesResponse()

    def GetPluginInfo(self, _request: Any, _context: Any) -> Any:
        return plugin_pb2.PluginInfo()

    def Run(self, request: Any, context: Any) -> Any:
        SDK["restore"]()
        return runpy.run_path(str(HERE / "program.py"))["run"](request, context)

    def InstallDependencies(self, _request: Any, _context: Any) -> Iterator[Any]:
        """None: a plugin runs on this interpreter, as a program does."""
        return iter(())

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:
        """Run a plugin that is Python source, and pass on what it prints: its port, first of all."""
        environment = dict(line.split("=", 1) for line in request.env)
        command = _command(request)
        with subprocess.Popen(command, cwd=request.pwd, env=environment, stdout=subprocess.PIPE) as process:
            context.add_callback(process.kill)  # the engine ends a plugin by ending this call
            for line in process.stdout or ():
                yield language_pb2.RunPluginResponse(stdout=line)
            yield language_pb2.RunPluginResponse(exitcode=process.wait())


def _command(request: Any) -> list[str]:
    """A policy pack (`PulumiPolicy.yaml`) runs in its own virtual environment, as with the official host; any other plugin
    (`PulumiPlugin.yaml`) on this interpreter."""
    program = request.info.program_directory
    if request.kind != "analyzer":
        return [sys.executable, "-u", program, *request.args]
    options = request.info.options
    python = Path(program, options["virtualenv"], "bin", "python") if "virtualenv" in options else Path(sys.executable)
    if not python.exists():
        print(f"the policy pack has no {python.parent.parent}: run `python3 -m bootstrap policies`", file=sys.stderr)
    address, *rest = request.args
    return [str(python), "-u", "-m", "pulumi.policy", address, program, *rest]


def main() -> None:
    runpy.run_path(str(WATCH))["end_with_engine"](sys.argv[-1])
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=OPTIONS)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    stopped.wait()
    os._exit(0)  # a program still running waits for an engine that is gone


if __name__ == "__main__":
    main()
