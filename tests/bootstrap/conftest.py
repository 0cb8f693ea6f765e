"""A checkout below a path with a space, and a download site."""

import shutil
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bootstrap import download
from bootstrap.project import HERE, Project
from tests.bootstrap.commands import Commands

NOWHERE = "http://127.0.0.1:1"  # refuses at once


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "a clone"
    for place in ("offline/plugins", "stacks", ".venv/bin"):
        (root / place).mkdir(parents=True)
    shutil.copytree(HERE.root / "offline" / "engine", root / "offline" / "engine")
    (root / "Pulumi.yaml").write_text("name: trial\nruntime: python\n")
    return Project(root)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path / "some bin")


@pytest.fixture(autouse=True)
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test asks Pulumi's real sites."""
    monkeypatch.setattr(download, "SITE", NOWHERE)
    monkeypatch.setattr(download, "RELEASES", f"{NOWHERE}/repos/pulumi")
    download.clear()
    yield
    download.clear()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Pulumi's download site and the record of its releases, which serve what is put into this mapping."""
    pages: dict[str, bytes] = {"/": b"{}"}
    with _server(pages) as server:
        place = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(download, "SITE", place)
        monkeypatch.setattr(download, "RELEASES", f"{place}/repos/pulumi")
        Thread(target=server.serve_forever, daemon=True).start()
        yield pages
        server.shutdown()


def _server(pages: Mapping[str, bytes]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            return

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)
