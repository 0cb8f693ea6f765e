"""A test that makes its own cluster of two containers by testcontainers, as far as that goes, and by the steps of a script.

python testcontainers_run.py IMAGE READY STEPS: the file READY gets the moment of the first line of the test, the file STEPS holds
a list of [server, shell script, argument…] as JSON. It runs in a virtual environment that has testcontainers, and nothing of this
project.
"""

import json
import sys
import time
from pathlib import Path

from testcontainers.core.container import DockerContainer  # type: ignore[import-not-found]
from testcontainers.core.network import Network  # type: ignore[import-not-found]


def main(image: str, ready: str, steps: str) -> None:
    with Network() as network:
        servers = [
            DockerContainer(image)
            .with_command("sleep infinity")
            .with_network(network)
            .with_network_aliases(f"server{number}")
            for number in range(2)
        ]
        try:
            for server in servers:
                server.start()
            for number, script, *arguments in json.loads(Path(steps).read_text()):
                container = servers[number].get_wrapped_container()
                code, output = container.exec_run(["sh", "-c", script, "sh", *arguments], user="postgres")
                if code:
                    sys.exit(output.decode())
            Path(ready).write_text(str(time.monotonic()))
        finally:
            for server in servers:
                server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
