"""How much a pulumi command asks of the machines and servers of a cluster."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.engine.cluster import Cluster
from tests.engine.workspace import Output

HOOK = Path(__file__).with_name("counted")
COMMANDS, CONNECTIONS = 4, 2
"""Of one process to one server."""

Asked = Counter[tuple[int, str, str]]
"""By process, kind ("command", "connection") and server."""


def counted(cluster: Cluster, run: Callable[[], Output]) -> Asked:
    """What `run` asks of each server, by the directory that all of it lies in."""
    environment = cluster.workspace.environment
    with tempfile.NamedTemporaryFile("r") as file:
        added = {"PYTHONPATH": str(HOOK), "TDE_COUNTED": file.name}
        environment |= added
        try:
            done = run()
        finally:
            for name in added:
                del environment[name]
        assert done.code == 0, done.errors or done.text
        asked: Asked = Counter()
        for process, kind, address, arguments in map(json.loads, file):
            [server] = [
                name
                for name in cluster.names
                if address == cluster.host(name).address and str(cluster.place(name).parent) in arguments
            ]
            asked[process, kind, server] += 1
    return asked


def is_little(asked: Asked) -> None:
    for (process, kind, server), count in asked.items():
        assert count <= (COMMANDS if kind == "command" else CONNECTIONS), (process, kind, server, asked)
