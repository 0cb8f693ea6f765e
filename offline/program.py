"""Runs a stack's ``__main__.py`` for `language_host`: the SDK's own server for inline programs, pointed at a file."""

import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import grpc
import pulumi
from pulumi.automation import PulumiFn, _server
from pulumi.runtime import run_in_stack

TOLD = 32
"""The exit status of a program that has told what is wrong: the official host adds nothing to it."""


class Program(_server.LanguageServer):
    """Runs it once: the engine starts a host for the preview and another one for the update."""

    status: int | None = None
    """With which the program ended; None where it came to its end, or raised."""

    def __init__(self) -> None:
        super().__init__(self._program)
        self._directory = Path()

    def Run(self, request: Any, context: Any) -> Any:
        self._directory = Path(request.info.program_directory).resolve()
        os.chdir(self._directory)
        if str(self._directory) not in sys.path:
            sys.path.insert(0, str(self._directory))
        request.args[:] = sys.argv[-1:]  # the engine's address, for `pulumi.log`: the official host passes it on, too
        result: Any = super().Run(request, context)  # type: ignore[no-untyped-call]
        # Whatever went wrong has been logged. Of any other status the official host has the engine say one thing more.
        status = bool(result.error) if self.status is None else self.status
        result.bail = status == TOLD
        result.error = "" if status in (0, TOLD) else f"program exited with non-zero exit code: {int(status)}"
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
        Program.status = error.code if isinstance(error.code, int) else bool(error.code)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except Exception as error:  # noqa: BLE001
        Program.status = TOLD
        raise pulumi.RunError(f"Program failed with an unhandled exception:\n{_user_traceback(error)}") from None


def _user_traceback(error: Exception) -> str:
    frames = error.__traceback__
    while frames and not _is_in(Path.cwd(), frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))


def run(request: Any, context: Any) -> Any:
    """Run the program, and give the engine's answer."""
    _server.run_in_stack = _run_in_stack  # type: ignore[attr-defined,assignment]
    return Program().Run(request, context)
