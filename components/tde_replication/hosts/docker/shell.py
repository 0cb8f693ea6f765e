"""A shell in a container that lives as long as this process, or as the container: a `docker exec` takes a tenth of a second, and
a switchover runs more than a hundred small scripts.

dockerd closes its standard input when this process is gone, however that ended; then it ends.
"""

from collections.abc import Generator
from contextlib import ExitStack

from tde_replication.hosts.docker.attached import TOLD, Attached
from tde_replication.hosts.docker.containers import ACCOUNT
from tde_replication.hosts.docker.daemon import daemon
from tde_replication.hosts.worker import SERVE, Worker
from tde_replication.waiting import Limit


class ContainerShell(Worker):
    """Raises `NotRunning` where no command can run in that container."""

    def __init__(self, container: str) -> None:
        with ExitStack() as opened:
            client = opened.enter_context(daemon())
            command = ["/bin/sh", "-c", f"{TOLD}{SERVE}", "files"]
            self._attached = opened.enter_context(Attached(client, container, command, user=ACCOUNT))
            self._send(b"\n")
            self._opened = opened.pop_all()

    @property
    def alive(self) -> bool:
        return not self._attached.has_something  # nothing was asked: it would be the end

    def _send(self, data: bytes) -> None:
        self._attached.send(data)

    def _pieces(self, deadline: float) -> Generator[tuple[int, bytes]]:
        with Limit(deadline, self._attached.cut) as limit:
            yield from self._attached.frames()
        limit.expect_not_interrupted("work on files")
        if limit.passed:
            raise TimeoutError
        raise EOFError

    def end(self) -> None:
        self._opened.close()
