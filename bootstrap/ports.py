"""Free TCP ports for servers of our own."""

import random
import socket
from contextlib import suppress

RANGE = range(20000, 32000)
"""Below those that the kernel hands out to clients: none of them takes one meanwhile, or after a reboot."""


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Different ports on which nothing listens now. Raises `OSError` where there are not so many."""
    found: list[int] = []
    for port in random.SystemRandom().sample(RANGE, 400):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe, suppress(OSError):
            probe.bind((address, port))
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports between {RANGE.start} and {RANGE.stop} on {address}")
