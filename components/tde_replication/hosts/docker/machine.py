"""Servers in containers: the server is the container's main process, its data lies on a volume of the same name.

pulumi-docker makes container, volume and network (`placement`); here they are worked with, through Docker's own SDK. Where the
container is gone, the volume's labels say what it was made of, so that files can still be read and removed.
"""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from docker.errors import APIError, NotFound
from requests.exceptions import RequestException

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts import file_scripts as scripts
from tde_replication.hosts.answer import Kept, Lines
from tde_replication.hosts.base import Host, Postmaster
from tde_replication.hosts.docker import bridge as docker_bridge
from tde_replication.hosts.docker.attached import CUT, SUPERVISE, TOLD, Attached, NotRunning
from tde_replication.hosts.docker.containers import ACCOUNT, helper
from tde_replication.hosts.docker.daemon import daemon, instant
from tde_replication.hosts.docker.found import Found, find
from tde_replication.hosts.docker.shell import ContainerShell
from tde_replication.hosts.files import DEADLINE, LOG_TAIL_BYTES, Ended, ScriptedHost
from tde_replication.hosts.superuser import Connection
from tde_replication.hosts.worker import STDERR, STDOUT, WORKERS
from tde_replication.waiting import Limit, until

SCHEME = "docker://"
LOCKS_DEADLINE = 5.0
"""Seconds for a server to say that it listens; it may be told to say nothing."""
LOCKED = (b"listening on Unix socket", b"redirecting log output", b"FATAL:", b"PANIC:")
"""What a server says when it has its lock files, or gives up."""
LATE = 60.0
"""Seconds that a busy Docker may take to note a start."""
KILLED = 128 + 9
"""The status of a script whose shell was killed."""
DEATHS = 5
"""How often a container may end under a file operation, before that is given up."""
MAKING = {scripts.WRITE, scripts.REPLACE, scripts.MAKE_DIRECTORY}
"""What cannot be done where there is no container."""


class DockerHost(ScriptedHost):
    account = ACCOUNT
    administrators = ()

    def __init__(self, address: str) -> None:
        self.address = address
        self._name = address.removeprefix(SCHEME)
        self.label = f"{self._name}: "

    def _find(self) -> Found | None:
        return find(self._name)

    def _existing(self) -> Found:
        found = self._find()
        if found is None or not found.exists:
            raise Unavailable(f"there is no container {self._name}; `up` makes it")
        return found

    @contextmanager
    def _attached(self, found: Found, command: Sequence[str], **options: Any) -> Iterator[Attached]:
        """A command where the volume is: in the server's container, or in a helper."""
        with daemon() as client:
            if found.running:
                with suppress(NotRunning):  # it stopped just now
                    attached = Attached(client, found.container, command, user=ACCOUNT, **options)
                    with attached:
                        yield attached
                        return
            with (
                helper(found.place, ACCOUNT) as container,
                Attached(client, container, command, user=ACCOUNT, **options) as attached,
            ):
                yield attached

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: float,
        directory: PurePosixPath | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        output = Kept(f"container {self._name}")
        errors = Lines(on_line)
        where = str(directory or "/")
        variables = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"} | dict(environment or {})
        found = self._existing()
        foreign = {"HOME", "HOSTNAME", *found.variables} - variables.keys()
        supervised = ["/bin/sh", "-c", SUPERVISE, "supervise", " ".join(sorted(foreign)), *command]
        options = {"directory": where, "environment": variables, "deadline": deadline + CUT}
        with self._attached(found, supervised, **options) as attached, Limit(deadline, attached.end_input) as limit:
            try:
                attached.send(b"\n")
                for stream, data in attached.frames():
                    if stream == STDOUT:
                        output.add(data)
                    else:
                        errors.feed(data)
                errors.end()
                status = attached.status()
            except TimeoutError:
                status = -1
        name = PurePosixPath(command[0]).name
        limit.expect_not_interrupted(name)
        if limit.passed:
            raise CommandFailed(name, status, f"it did not end within {deadline:g} s")
        if status:
            raise CommandFailed(name, status, "".join(list(errors.lines)[-20:]))
        return bytes(output).decode(errors="replace")

    def _execute(self, script: str, *arguments: str, content: bytes = b"", deadline: float = DEADLINE) -> Ended:
        for _ in range(DEATHS):
            found = self._existing() if script in MAKING else self._find()
            if found is None:
                return Ended(scripts.ABSENT, b"", "")
            try:
                if content:
                    ended = self._alone(found, script, *arguments, content=content, deadline=deadline)
                else:
                    ended = self._in_shell(found, f"set -- {shlex.join(arguments)}\n{script}", deadline)
            except TimeoutError:
                raise Unavailable(f"container {self._name} did not answer within {deadline:g} s") from None
            if ended.status in scripts.ANSWERS or not found.running or self._find() == found:
                break  # else the server's container ended under it
        missing = f"its container ended (status {ended.status})" if ended.status else ""
        return replace(ended, errors=ended.errors or missing)

    def _in_shell(self, found: Found, text: str, deadline: float) -> Ended:
        """In one that is kept. Raises `TimeoutError`."""
        try:
            if found.running:
                with suppress(NotRunning):  # it stopped just now
                    return WORKERS.ask(
                        found.container, found.run, lambda: ContainerShell(found.container), text, deadline
                    )
            with helper(found.place, ACCOUNT) as container:
                return WORKERS.ask(container, "", lambda: ContainerShell(container), text, deadline)
        except EOFError:
            return Ended(KILLED, b"", "")

    def _alone(self, found: Found, script: str, *arguments: str, content: bytes, deadline: float) -> Ended:
        """In a shell of its own: no content can be taken for commands. Raises `TimeoutError`."""
        command = ["/bin/sh", "-c", f"{TOLD}{script}", "files", *arguments]
        output: defaultdict[int, Kept] = defaultdict(lambda: Kept(f"container {self._name}"))
        with self._attached(found, command, deadline=deadline) as attached:
            attached.send(b"\n" + content)
            attached.end_input()
            for stream, data in attached.frames():
                output[stream].add(data)
            status = attached.status()
        return Ended(status, bytes(output[STDOUT]), bytes(output[STDERR]).decode(errors="replace"))

    @contextmanager
    def stopped_soon(self) -> Iterator[None]:
        found = self._find()
        if found is None:
            yield
            return
        with helper(found.place, ACCOUNT):
            with suppress(TimeoutError):
                self._in_shell(replace(found, running=False), "true", DEADLINE)
            yield

    def start(self, binaries: PurePosixPath, data_directory: PurePosixPath) -> int:
        del binaries, data_directory  # the container's command names them
        found = self._existing()
        paused = found.paused
        with daemon() as client:
            if found.restarting:
                client.stop(self._name, timeout=0)  # Docker would wait for up to a minute before it starts it again
            now = instant(client.info()["SystemTime"])  # the clock that dates its log's lines
            try:
                (client.unpause if paused else client.start)(self._name)
            except APIError as error:
                raise UserError(f"container {self._name} does not start: {error.explanation}") from None
            if not paused:
                # No command in it before: the server would take one that has the number of a server which was killed for
                # that server, whose lock files are still there, and not start.
                until(lambda: self._has_locks(client, now), seconds=LOCKS_DEADLINE)
        return int(now * 1e6)

    def _has_locks(self, client: Any, since: float) -> bool:
        said = client.logs(self._name, since=since)
        return any(text in said for text in LOCKED) or not client.inspect_container(self._name)["State"]["Running"]

    def log_since(self, data_directory: PurePosixPath, mark: int) -> str:
        del data_directory
        with daemon() as client:
            said: bytes = client.logs(self._name, since=mark / 1e6)
        return said[-LOG_TAIL_BYTES:].decode(errors="replace")

    def postmaster(self, data_directory: PurePosixPath) -> Postmaster | None:
        found = self._find()
        if found is None or not found.running:
            return None
        server = super().postmaster(data_directory)
        # A lock file that a killed server left may name a process that this container has again; that server's start was before.
        if server and not server.lost and 0 < server.started < int(max(found.finished_at, found.started_at - LATE)):
            return None
        return server

    def on(self, networks: Sequence[str]) -> list[str]:
        with daemon() as client:
            try:
                here = client.inspect_container(self._name)["NetworkSettings"]["Networks"]
            except NotFound:
                return list(networks)  # it is made with all of them
        return [name for name in networks if name in here]

    def passing_address(self, seen_from: Host) -> str | None:
        other = seen_from.address.removeprefix(SCHEME)
        with daemon() as client, suppress(NotFound):
            here, there = (
                client.inspect_container(name)["NetworkSettings"]["Networks"] for name in (self._name, other)
            )
            return next((found["IPAddress"] for name, found in here.items() if name in there), None) or None
        return None

    def join(self, network: str) -> None:
        with daemon() as client:
            client.connect_container_to_network(self._name, network)

    def stop(self, binaries: PurePosixPath, data_directory: PurePosixPath, *, deadline: float) -> None:
        del binaries
        found = self._find()
        if found is None or not found.exists:
            return
        with daemon() as client:
            if found.paused:
                client.unpause(self._name)
                found = self._existing()
            for signal in ("SIGINT", "SIGQUIT"):  # fast shutdown, immediate shutdown
                if not found.running:
                    client.stop(self._name, timeout=0)  # or its restart policy brings it back
                    return
                with suppress(APIError):  # it ended just now
                    client.kill(self._name, signal)
                with suppress(RequestException):
                    client.wait(self._name, timeout=int(deadline))
                    return
        raise UserError(f"the server on {data_directory} did not stop within {2 * deadline:g} s")

    def connect(self, data_directory: PurePosixPath, database: str, **options: Any) -> Connection:
        found = self._find()
        if found is None or not found.running:
            raise Unavailable(f"no server runs on {data_directory} of {self._name}")
        return docker_bridge.connect(self._name, data_directory, database, options)
