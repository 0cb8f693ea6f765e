"""Stand-in for pulumi-command: remote.Command, by OpenSSH's own `ssh`.

What runs when, and that reading connects to nothing, is as the plugin does it; of its connections it takes keys, agents and
one jump host, not passwords. It is started by the engine: command.py <address of the engine>.
"""

import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

# Not this directory: the docker.py in it is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from offline.plugins.base import Found, Input, Plugin, PluginError, Resource, serve  # noqa: E402
from offline.plugins.protocol import Properties  # noqa: E402

SSH_FAILED = 255
PAUSE = 0.5
DEFAULTS = {"port": 22, "user": "root", "dialErrorLimit": 10, "perDialTimeout": 15}


class RemoteCommand(Resource):
    inputs: ClassVar = {
        "connection": Input(canonical=lambda connection: DEFAULTS | connection),
        "create": Input(),
        "update": Input(),
        "delete": Input(),
        "stdin": Input(),
        "logging": Input(),
        "addPreviousOutputInEnv": Input(default=True),
        "triggers": Input(replaces=True),
    }
    outputs = ("stdout", "stderr")
    secrets = ("connection",)

    def create(self, inputs: Properties) -> Found:
        return Found(f"command{secrets.token_hex(4)}", self._run(inputs, inputs.get("create")))

    def read(self, identity: str, state: Properties) -> Found | None:
        return Found(identity, state)

    def update(self, identity: str, inputs: Properties, old: Properties) -> str:
        del old
        self._run(inputs, inputs.get("update") or inputs.get("create"))
        return identity

    def delete(self, identity: str, state: Properties) -> None:
        del identity
        self._run(state, state.get("delete"))

    def _run(self, inputs: Properties, command: str | None) -> Properties:
        if not command:
            return {"stdout": "", "stderr": ""}
        connection = DEFAULTS | inputs["connection"]
        with _arguments(connection) as arguments:
            limit = int(connection["dialErrorLimit"])
            for _ in range(limit):
                done = subprocess.run(
                    [*arguments, command], input=inputs.get("stdin") or "", capture_output=True, text=True, check=False
                )
                if done.returncode != SSH_FAILED:
                    break
                time.sleep(PAUSE)
            else:
                raise PluginError(f"after {limit} failed attempts: {done.stderr.strip()}")
        if done.returncode:
            raise PluginError(
                f'Process exited with status {done.returncode}: running "{command}":\n{done.stdout}{done.stderr}'
            )
        return {"stdout": done.stdout.removesuffix("\n"), "stderr": done.stderr.removesuffix("\n")}


@contextmanager
def _arguments(connection: Mapping[str, Any]) -> Iterator[list[str]]:
    """The arguments of ssh for a connection, with its keys in files as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="pulumi-command-") as directory:
        words = _destination(connection, Path(directory), "host")
        if proxy := connection.get("proxy"):
            hop = shlex.join(_destination(DEFAULTS | proxy, Path(directory), "proxy")).replace("%", "%%")
            words[1:1] = [f"-oProxyCommand={hop.replace('ssh ', 'ssh -W [%h]:%p ', 1)}"]
        yield words


def _destination(connection: Mapping[str, Any], directory: Path, name: str) -> list[str]:
    options = {
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "ConnectTimeout": str(int(connection["perDialTimeout"])),
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
    }
    if (key := connection.get("hostKey")) is not None:
        if not key:
            raise PluginError("ssh: no key found")
        known = directory / f"{name}-known"
        known.write_text(f"* {key}\n")
        options |= {"StrictHostKeyChecking": "yes", "UserKnownHostsFile": str(known)}
    if key := connection.get("privateKey"):
        identity = directory / f"{name}-key"
        identity.touch(mode=0o600)
        identity.write_text(key)
        options |= {"IdentityFile": str(identity), "IdentitiesOnly": "yes"}
    words = [f"-o{option}={value}" for option, value in options.items()]
    return [
        "ssh",
        "-F/dev/null",
        *words,
        "-p",
        str(int(connection["port"])),
        "-l",
        connection["user"],
        "--",
        connection["host"],
    ]


class CommandPlugin(Plugin):
    name = "command"

    def configure(self, settings: Properties) -> Mapping[str, Resource]:
        del settings
        return {"command:remote:Command": RemoteCommand()}


if __name__ == "__main__":
    serve(CommandPlugin())
