"""Stand-in for pulumi-command: remote.Command and remote.CopyToRemote, by OpenSSH's own `ssh`.

What runs when, and that reading connects to nothing, is as the plugin does it; of its connections it takes keys, agents and
one jump host, not passwords. It is started by the engine: command.py <address of the engine>.
"""

import itertools
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, ClassVar

# Not this directory: the docker.py in it is not the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import grpc  # noqa: E402

from offline.plugins import sftp  # noqa: E402
from offline.plugins.base import Found, Input, Plugin, PluginError, Resource, say, serve  # noqa: E402
from offline.plugins.protocol import Asset, Properties  # noqa: E402

PREVIOUS = {"stdout": "PULUMI_COMMAND_STDOUT", "stderr": "PULUMI_COMMAND_STDERR"}
DEFAULTS = {"port": 22, "user": "root", "dialErrorLimit": 10, "perDialTimeout": 15}
SERVED = {*DEFAULTS, "host", "privateKey", "hostKey", "agentSocketPath"}
WORDING = {
    r"resolve hostname (?P<host>[^\s:]+)": "dial tcp: lookup {host}: no such host",
    r"connect to host (?P<host>\S+) port (?P<port>\d+): (?P<why>.*)": "dial tcp {host}:{port}: connect: {why}",
    r"REMOTE HOST IDENTIFICATION|Host key verification failed": "ssh: handshake failed: ssh: host key mismatch",
    r"Permission denied \((?P<why>\S*)\)": "ssh: handshake failed: ssh: unable to authenticate, attempted methods "
    "[none publickey], no supported methods remain",
}
"""What OpenSSH says, and what the plugin says then."""


class RemoteResource(Resource):
    """Something on a machine that is reached by `connection`; nobody looks whether it is there still."""

    terraform = False
    secrets = ("connection",)
    declared_as: ClassVar[str]
    """The plugin's name of all its inputs together."""
    required: ClassVar[tuple[str, ...]]

    def fill(self, inputs: Properties) -> Properties:
        if not isinstance(connection := inputs.get("connection"), dict):
            return inputs
        filled = DEFAULTS | connection
        if isinstance(proxy := filled.get("proxy"), dict):
            filled["proxy"] = DEFAULTS | proxy
        return inputs | {"connection": filled}

    def check(self, inputs: Properties) -> Iterator[tuple[str, str]]:
        for name in self.required:
            if inputs.get(name) is None:
                yield name, _missing(name, self.declared_as)
        if isinstance(connection := inputs.get("connection"), Mapping):
            proxy = connection.get("proxy")
            known = proxy if isinstance(proxy, Mapping) else {}
            if "host" not in connection:
                yield "connection", f"{_within(self.declared_as, 'connection')}host: {_missing('host', 'Connection')}"
            elif known and "host" not in known:
                way = _within(self.declared_as, "connection") + "proxy: " + _within("Connection", "proxy")
                yield "connection", f"{way}host: {_missing('host', 'ProxyConnection')}"
            for key in sorted((connection.keys() - {"proxy"} | known.keys()) - SERVED):
                yield f"connection.{key}", "the offline stand-in for pulumi-command does not serve it"

    def read(self, identity: str, state: Properties) -> Found | None:
        return Found(identity, state)


def _missing(name: str, where: str) -> str:
    return f"Missing required field '{name}' on 'remote.{where}'"


def _within(where: str, name: str) -> str:
    return f"An error occurred decoding '{where}.{name}': 1 failures decoding:\n\t"


class RemoteCommand(RemoteResource):
    declared_as = "CommandInputs"
    required = ("connection",)
    inputs: ClassVar = {
        "connection": Input(whole=True),
        "create": Input(),
        "update": Input(),
        "delete": Input(),
        "stdin": Input(),
        "logging": Input(),
        "addPreviousOutputInEnv": Input(),
        "triggers": Input(replaces=True),
    }
    outputs = ("stdout", "stderr")

    def identify(self, name: str) -> str:
        return name + secrets.token_hex(4)

    def create(self, inputs: Properties) -> Found:
        return Found("", self._run(inputs, inputs.get("create"), {}))

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        return Found(identity, self._run(inputs, inputs.get("update") or inputs.get("create"), old))

    def delete(self, identity: str, state: Properties) -> None:
        del identity
        self._run(state, state.get("delete"), state)

    def _run(self, inputs: Properties, command: str | None, old: Properties) -> Properties:
        if not command:
            return {name: old.get(name) or "" for name in PREVIOUS}
        environment = dict(os.environ)
        if inputs.get("addPreviousOutputInEnv") is not False:
            environment |= {variable: old[name] for name, variable in PREVIOUS.items() if old.get(name)}
        given = str(inputs.get("stdin") or "").encode()
        shown = inputs.get("logging") or "stdoutAndStderr"
        with _dialled(inputs["connection"], [command], environment) as (process, errors):
            stdout = "".join(_lines(process, given, aloud=shown.startswith("stdout")))
            process.wait()
            stderr = errors.read_text(errors="replace")
        for line in stderr.splitlines() if shown.lower().endswith("stderr") else ():
            say(line, ephemeral=True)
        if process.returncode:
            quoted = json.dumps(command, ensure_ascii=False)
            raise PluginError(f"Process exited with status {process.returncode}: running {quoted}:\n{stdout}{stderr}")
        return {"stdout": stdout.removesuffix("\n"), "stderr": stderr.removesuffix("\n")}


def _lines(process: subprocess.Popen[bytes], given: bytes, *, aloud: bool) -> Iterator[str]:
    """The lines of its output, each shown as it comes, while it is `given` its input."""
    assert process.stdin  # noqa: S101 - for the type checker, as the next
    assert process.stdout  # noqa: S101
    feeding = threading.Thread(target=_feed, args=(process.stdin, given))
    feeding.start()
    for data in process.stdout:
        line = data.decode(errors="replace")
        if aloud:
            say(line.rstrip("\n"), ephemeral=True)
        yield line
    feeding.join()


def _feed(stdin: IO[bytes], given: bytes) -> None:
    with suppress(OSError), stdin:  # it need not read it
        stdin.write(given)


class CopyToRemote(RemoteResource):
    """What was copied stays, whether the source or the path changes or the resource goes."""

    declared_as = "CopyToRemoteInputs"
    required = ("connection", "source", "remotePath")
    inputs: ClassVar = {
        "connection": Input(whole=True),
        "source": Input(),
        "remotePath": Input(),
        "triggers": Input(replaces=True),
    }
    outputs = ("source",)

    def check(self, inputs: Properties) -> Iterator[tuple[str, str]]:
        yield from super().check(inputs)
        match inputs.get("source"):
            case Asset(archive=True, path=None):
                yield "archive", "archive must be a path to a file or directory"
            case Asset(archive=False, path=None):
                yield (
                    "asset",
                    "asset must be a path-based file asset or a text asset (which this stand-in does not serve)",
                )
            case None:
                yield "asset", "either asset or archive must be set"

    def create(self, inputs: Properties) -> Found:
        self._copy(inputs)
        return Found(secrets.token_hex(4), {})

    def update(self, identity: str, inputs: Properties, old: Properties) -> Found:
        if (inputs["source"], inputs["remotePath"]) != (old.get("source"), old.get("remotePath")):
            self._copy(inputs)
        return Found(identity, {})

    def delete(self, identity: str, state: Properties) -> None:
        del identity, state

    def _copy(self, inputs: Properties) -> None:
        with _dialled(inputs["connection"], ["sftp"], dict(os.environ), "-s") as (process, _):
            try:
                sftp.copy(sftp.Sftp(process), inputs["source"].path, inputs["remotePath"])
            except OSError as error:
                raise PluginError(str(error)) from error


@contextmanager
def _dialled(
    connection: Properties, words: list[str], environment: dict[str, str], *options: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start ssh with `words` for the other side; the process, and the file with its standard error.

    Only what does not connect is tried again: a command that ran, ran once, however it ended.
    """
    limit = int(connection["dialErrorLimit"])
    with tempfile.TemporaryDirectory(prefix="pulumi-command-") as directory:
        connected, errors = Path(directory, "connected"), Path(directory, "errors")
        told = [*options, "-oPermitLocalCommand=yes", f"-oLocalCommand=touch {shlex.quote(str(connected))}"]
        told.append(f"-oSendEnv={' '.join(PREVIOUS.values())}")
        ssh, *arguments = _arguments(connection, Path(directory))
        for attempt in itertools.count():
            with (
                errors.open("wb") as log,
                subprocess.Popen(
                    [ssh, *told, *arguments, *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                ) as process,
            ):
                while process.poll() is None and not connected.exists():
                    time.sleep(0.01)
                if connected.exists():
                    yield process, errors
                    return
            if attempt == limit:
                raise PluginError(f"after {limit} failed attempts: {_worded(errors.read_text(errors='replace'))}")
            say(f"Dial {attempt + 1}/{limit} failed: retrying", ephemeral=True)
            time.sleep(min(0.1 * 1.5**attempt, 5))


def _worded(text: str) -> str:
    for pattern, wording in WORDING.items():
        if found := re.search(pattern, text):
            return wording.format(**{key: value.strip().lower() for key, value in found.groupdict().items()})
    return text.strip()


def _arguments(connection: Mapping[str, Any], directory: Path) -> list[str]:
    """The arguments of ssh for a connection, with its keys in files of the directory."""
    words = _destination(connection, directory, "host")
    if proxy := connection.get("proxy"):
        hop = shlex.join(_destination(proxy, directory, "proxy")).replace("%", "%%")
        words[1:1] = [f"-oProxyCommand={hop.replace('ssh ', 'ssh -W [%h]:%p ', 1)}"]
    return words


def _destination(connection: Mapping[str, Any], directory: Path, name: str) -> list[str]:
    options = {
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "ConnectTimeout": str(int(connection["perDialTimeout"])),
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
    }
    if (key := connection.get("hostKey")) is not None:
        if len(key.split()) < 2:  # noqa: PLR2004 - kind and key
            raise PluginError("failed to parse host key: ssh: no key found")
        known = directory / f"{name}-known"
        known.write_text(f"* {key}\n")
        options |= {"StrictHostKeyChecking": "yes", "UserKnownHostsFile": str(known)}
    if (key := connection.get("privateKey")) is not None:
        if "PRIVATE KEY" not in key:
            raise PluginError("ssh: no key found")
        identity = directory / f"{name}-key"
        identity.touch(mode=0o600)
        identity.write_text(key)
        options |= {"IdentityFile": str(identity), "IdentitiesOnly": "yes"}
    if agent := connection.get("agentSocketPath"):
        options |= {"IdentityAgent": agent}
    words = [f"-o{option}={value}" for option, value in options.items()]
    port, user = str(int(connection["port"])), connection["user"]
    return ["ssh", "-F/dev/null", *words, "-p", port, "-l", user, "--", connection["host"]]


class CommandPlugin(Plugin):
    name = "command"
    terraform = False

    def DiffConfig(self, _request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "DiffConfig is not implemented")

    def configure(self, settings: Properties) -> Mapping[str, Resource]:
        del settings
        return {"command:remote:Command": RemoteCommand(), "command:remote:CopyToRemote": CopyToRemote()}


if __name__ == "__main__":
    serve(CommandPlugin())
