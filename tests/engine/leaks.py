"""Looking for secrets where none may be: in texts, files, and in what every process shows of itself."""

import base64
import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tde_replication.hosts.account import service_account


def forms(secret: str) -> set[str]:
    """The ways in which a secret may be written: itself, in JSON, in a URL, in base64."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode().rstrip("="),
    }


def leaked(secrets: Mapping[str, str], text: str | bytes) -> set[str]:
    """The names of the secrets that `text` holds."""
    content = text.decode(errors="replace") if isinstance(text, bytes) else text
    return {name for name, secret in secrets.items() for form in forms(secret) if form in content}


class Processes:
    """What all processes of this machine showed of themselves while it was watched: arguments, and the environments of those
    that the service account runs."""

    def __init__(self) -> None:
        self.arguments: set[bytes] = set()
        self.environments: set[bytes] = set()

    def look(self) -> None:
        account = service_account()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                self.arguments.add((process / "cmdline").read_bytes())
                if process.stat().st_uid == account.uid and account.uid != os.geteuid():
                    self.environments.add((process / "environ").read_bytes())
            except OSError:
                continue  # it ended meanwhile


@contextmanager
def watched() -> Iterator[Processes]:
    seen, stop = Processes(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            seen.look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()


def holding(secrets: Mapping[str, str], directory: Path) -> dict[str, set[str]]:
    """The files below `directory` that hold secrets in clear, each with their names."""
    found = {}
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink() and (names := leaked(secrets, path.read_bytes())):
            found[str(path.relative_to(directory))] = names
    return found


def readable_by_others(directory: Path) -> list[str]:
    """What somebody else can read below `directory`, through every directory above it."""
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        way = [parent for parent in path.parents if directory in (parent, *parent.parents)]
        if path.stat().st_mode & stat.S_IROTH and all(parent.stat().st_mode & stat.S_IXOTH for parent in way):
            found.append(str(path.relative_to(directory)))
    return found
