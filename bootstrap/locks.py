"""The locks of a file backend of Pulumi's."""

import json
import os
import socket
from pathlib import Path


def is_dead(lock: Path) -> bool:
    """Whether the process of this machine that wrote the lock has ended."""
    try:
        holder = json.loads(lock.read_text())
        if holder["hostname"] != socket.gethostname():
            return False
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False
