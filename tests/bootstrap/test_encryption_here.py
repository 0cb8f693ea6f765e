"""What gets encryption on a machine: asked from a Docker and package managers that answer as real ones do."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bootstrap.encryption_here import PAGE, Way, by_docker, by_packages, lines
from bootstrap.project import HERE
from tde_replication.hosts.docker import daemon
from tests.bootstrap.commands import Commands

FILE = HERE.root / "stacks" / "Pulumi.docker.yaml"
IMAGE = "percona/percona-distribution-postgresql:18.6"


class Dockerd:
    """Answers what is asked of it; `images` are those that it has, `registry` its answer for one that it has not."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.registry: tuple[int, dict[str, Any]] = (200, {"Descriptor": {}})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                answers: dict[str, tuple[int, Any]] = {
                    "version": (200, {"ApiVersion": "1.44"}),
                    "_ping": (200, "OK"),
                    "images/json": (200, outer.images),
                    f"distribution/{IMAGE}/json": outer.registry,
                }
                found: tuple[int, Any] = next(
                    (one for end, one in answers.items() if path.endswith(f"/{end}")), (404, {})
                )
                body = found[1].encode() if isinstance(found[1], str) else json.dumps(found[1]).encode()
                self.send_response(found[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Not on the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"tcp://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def dockerd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    made = Dockerd()
    monkeypatch.setenv("DOCKER_HOST", made.address)
    for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    daemon._version.cache_clear()
    yield made
    daemon._version.cache_clear()
    made.close()


def test_docker_that_has_the_image(dockerd: Dockerd) -> None:
    dockerd.images = [{"Id": "sha256:1", "RepoTags": [IMAGE]}]
    assert by_docker(FILE) == Way("make up STACK=docker", f"its image {IMAGE} is here")


def test_docker_that_can_have_the_image(dockerd: Dockerd) -> None:
    del dockerd
    assert by_docker(FILE) == Way("make up STACK=docker", f"Docker pulls the image {IMAGE} first")


def test_docker_that_cannot_have_the_image(dockerd: Dockerd) -> None:
    dockerd.registry = (500, {"message": "dial tcp: lookup registry-1.docker.io: no such host"})
    way = by_docker(FILE)
    assert way.commands == ""
    assert way.note.startswith(f"image {IMAGE} is not here and cannot be pulled: ")
    assert "no such host" in way.note


def test_docker_that_does_not_answer(dockerd: Dockerd) -> None:
    dockerd.close()
    way = by_docker(FILE)
    assert (way.commands, way.note.partition(",")[0]) == ("", f"dockerd does not answer at {dockerd.address}")


APT = """cat <<END
percona-postgresql-18:
  Installed: (none)
  Candidate: {server}
  Version table:
     2:18.6-1 500
percona-pg-tde18:
  Installed: (none)
  Candidate: {tde}
percona-postgresql-17:
  Installed: (none)
  Candidate: 2:17.12-1
percona-pg-tde17:
  Installed: (none)
  Candidate: 2.2.2-1
END"""
DNF = """cat <<END
Available Packages
percona-postgresql18-server.x86_64   18.6-1   ppg
percona-pg_tde18.x86_64   2.2.2-1   ppg
END"""
NONE = "Percona's are not available to {}; to add the repository, see " + PAGE


@pytest.mark.parametrize(
    ("scripts", "account", "expected"),
    [
        (
            {"apt-get": "", "apt-cache": APT.format(server="2:18.6-1", tde="2.2.2-1")},
            0,
            Way(
                "make destroy; apt-get install percona-postgresql-18 percona-pg-tde18; make up",
                "apt-get has Percona Server for PostgreSQL 18",
            ),
        ),
        (
            {"apt-get": "", "apt-cache": APT.format(server="2:18.6-1", tde="(none)")},
            1000,
            Way(
                "make destroy; sudo apt-get install percona-postgresql-17 percona-pg-tde17; make up",
                "apt-get has Percona Server for PostgreSQL 17",
            ),
        ),
        ({"apt-get": "", "apt-cache": ""}, 0, Way("", NONE.format("apt-get"))),
        ({"apt-get": "", "apt-cache": "exec /nothing"}, 0, Way("", NONE.format("apt-get"))),
        (
            {"dnf": DNF},
            0,
            Way(
                "make destroy; dnf install percona-postgresql18-server percona-pg_tde18; make up",
                "dnf has Percona Server for PostgreSQL 18",
            ),
        ),
        ({"dnf": "exit 1"}, 0, Way("", NONE.format("dnf"))),
        ({}, 0, Way("", f"neither apt-get nor dnf is installed here; for other ways, see {PAGE}")),
    ],
)
def test_packages(
    scripts: dict[str, str], account: int, expected: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(tmp_path / "bin")
    for name, script in scripts.items():
        commands.add(name, script)
    (tmp_path / "bin" / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("os.geteuid", lambda: account)
    assert by_packages() == expected


def test_what_can_be_done_comes_first() -> None:
    ways = {"a": Way("", "why not"), "b": Way("do b", "b is here"), "c": Way("do c", "c is here")}
    assert lines(ways) == [
        "encrypt:  do b   # b is here",
        "or:       do c   # c is here",
        "a cannot be used for encryption: why not",
    ]
