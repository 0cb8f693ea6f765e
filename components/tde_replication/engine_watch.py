"""Ends a process that works for Pulumi's engine when that has gone, however it went.

Pulumi's own processes would not: what they go on doing is in no state, and in the way of the next `up`, which does it again. Only
the standard library, and nothing of this package: it runs before anything else is loaded.
"""

import os
import socket
import threading
import time

KEEPALIVE = 2
"""Seconds of silence after which the engine's side is asked whether it is there, between questions, and how many."""

GRACE = 2.0
"""Seconds for an engine that ends in order to end this process itself: it takes an earlier end for a fault of the provider."""


def end_with_engine(address: str) -> None:
    """From now on, end with the engine at `address`; at once where it has gone already."""
    host, _, port = address.rpartition(":")
    threading.Thread(target=_watch, args=(host, int(port)), daemon=True).start()


def _watch(host: str, port: int) -> None:
    while True:
        try:
            with socket.create_connection((host, port)) as connection:
                connection.settimeout(None)
                # An engine that is killed while it takes this connection leaves it open on our side: only being asked, its
                # machine says that nobody is there.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
                    connection.setsockopt(socket.IPPROTO_TCP, option, KEEPALIVE)
                while connection.recv(4096):
                    pass
        except ConnectionResetError:
            continue
        except OSError:
            time.sleep(GRACE)
            os._exit(1)
