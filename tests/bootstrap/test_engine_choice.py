import hashlib
import io
import json
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from threading import Thread

import pytest

from bootstrap import download, engine
from bootstrap.project import BootstrapError, Project
from tests.bootstrap.commands import Commands

GO = """
case "$1" in
env) echo go1.26.8 ;;
build) while [ $# -gt 0 ]; do case "$1" in -o) out=$2 ;; esac; shift; done
       printf '#!/bin/sh\\necho v3.259.0\\n' > "$out"; chmod +x "$out"; echo "$PWD" > "$out.from" ;;
esac"""


def add_pulumi(commands: Commands, version: str, *, language_host: bool = True) -> Path:
    if language_host:
        commands.add(engine.LANGUAGE_HOST, "exit 1")
    return commands.add("pulumi", f'echo ran >> "$0.runs"; echo v{version}')


@pytest.mark.parametrize("version", ["3.259.0", "3.259.1", "3.300.0-alpha.1", "4.0.0"])
def test_new_enough_on_path_is_taken_and_nothing_is_made(project: Project, commands: Commands, version: str) -> None:
    pulumi = add_pulumi(commands, version)
    chosen = engine.ensure(project, commands.environ())
    assert chosen.pulumi == pulumi
    assert version in chosen.why
    assert not project.engine.exists()


@pytest.mark.parametrize(
    ("version", "language_host", "says"),
    [
        ("3.258.9", True, "is 3.258.9, older than 3.259.0"),
        ("3.99.0", True, "is 3.99.0, older than"),
        ("3.260.0", False, "comes without pulumi-language-python"),
        ("; exit 1", True, "does not report its version"),
    ],
)
def test_unfit_on_path_is_refused_with_the_reason(
    project: Project, commands: Commands, version: str, *, language_host: bool, says: str
) -> None:
    add_pulumi(commands, version, language_host=language_host)
    commands.add("go", GO)
    chosen = engine.ensure(project, commands.environ())
    assert chosen.bin == project.engine
    assert says in chosen.why


def test_built_from_its_modules_where_nothing_else_can_be_had(
    project: Project, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.add("go", GO)
    chosen = engine.ensure(project, commands.environ())
    assert (project.engine / "pulumi.unfinished.from").read_text().strip() == str(project.root / "offline" / "engine")
    assert not (project.engine / "pulumi.unfinished").exists()
    said = capsys.readouterr().err
    assert f"engine: {chosen.why}" in said
    assert "there is no pulumi on PATH" in said
    assert "cannot be reached" in said
    assert said.count("stand-in") == 1


def test_the_hosts_stand_beside_the_engine_and_run_on_the_venv(project: Project, commands: Commands) -> None:
    commands.add("go", GO)
    engine.ensure(project, commands.environ())
    interpreter = Commands(project.venv / "bin").add("python", 'printf "%s|" "$@"')
    assert interpreter == project.python

    for name, source in ((engine.LANGUAGE_HOST, "language_host.py"), (engine.PROVIDER_HOST, "provider_host.py")):
        done = subprocess.run([project.engine / name, "a b"], capture_output=True, text=True, check=True)
        _, script, argument = done.stdout.rstrip("|").split("|")
        assert Path(script).resolve() == project.root / "offline" / source
        assert argument == "a b"


def archive(**files: str) -> bytes:
    """A release as Pulumi packs it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"pulumi/{name.replace('_', '-')}")
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def publish(site: dict[str, bytes], sent: bytes, digest: str | None) -> None:
    """Serve `sent` as the engine's archive, and `digest` as what the record says of it."""
    names = [f"pulumi-v3.259.0-linux-{architecture}.tar.gz" for architecture in ("x64", "arm64")]
    assets = [{"name": name, "digest": digest} for name in names]
    site["/repos/pulumi/pulumi/releases/tags/v3.259.0"] = json.dumps({"assets": assets}).encode()
    for name in names:
        site[f"/releases/sdk/{name}"] = sent


RELEASE = archive(pulumi="#!/bin/sh\necho v3.259.0\n", pulumi_language_python="ELF")
DIGEST = f"sha256:{hashlib.sha256(RELEASE).hexdigest()}"


def test_pulumis_release_where_it_can_be_reached(project: Project, commands: Commands, site: dict[str, bytes]) -> None:
    publish(site, RELEASE, DIGEST)
    chosen = engine.ensure(project, commands.environ())
    assert chosen.bin == project.engine
    assert f"from {download.SITE}" in chosen.why
    assert "stand-in" not in chosen.why
    assert (project.engine / engine.LANGUAGE_HOST).read_text() == "ELF"
    assert [path.name for path in project.engine.parent.iterdir()] == ["bin"]


def test_an_archive_with_another_checksum_is_not_installed(
    project: Project, commands: Commands, site: dict[str, bytes]
) -> None:
    commands.add("go", GO)
    publish(site, archive(pulumi="#!/bin/sh\ntouch /tmp/owned; echo v3.259.0\n"), DIGEST)
    with pytest.raises(BootstrapError, match="is not what Pulumi published"):
        engine.ensure(project, commands.environ())
    assert list(project.engine.parent.iterdir()) == []


@pytest.mark.parametrize("digest", [None, "", "md5:1234"])
def test_nothing_is_downloaded_without_a_checksum(
    project: Project, commands: Commands, site: dict[str, bytes], digest: str | None
) -> None:
    commands.add("go", GO)
    publish(site, RELEASE, digest)
    assert "built from its Go modules" in engine.ensure(project, commands.environ()).why


@pytest.mark.parametrize("record", [b"<html>Welcome to our wireless", b"[]", b'{"assets": [1]}'])
def test_a_portal_is_no_record_of_releases(
    project: Project, commands: Commands, site: dict[str, bytes], record: bytes
) -> None:
    commands.add("go", GO)
    publish(site, RELEASE, DIGEST)
    site["/repos/pulumi/pulumi/releases/tags/v3.259.0"] = record
    assert "built from its Go modules" in engine.ensure(project, commands.environ()).why


def test_an_archive_that_is_too_large_is_given_up(
    project: Project, commands: Commands, site: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.add("go", GO)
    publish(site, RELEASE, DIGEST)
    monkeypatch.setattr(download, "ARCHIVE_BYTES", len(RELEASE) - 1)
    assert "built from its Go modules" in engine.ensure(project, commands.environ()).why


def test_a_site_that_only_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte arrives in time, the whole does not: no socket's timeout sees that."""

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        for _ in range(50):
            time.sleep(0.1)
            connection.sendall(b"H")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=drip, args=[server], daemon=True).start()
        monkeypatch.setattr(download, "RELEASES", f"http://127.0.0.1:{server.getsockname()[1]}/repos/pulumi")
        monkeypatch.setattr(download, "PATIENCE", 0.3)
        began = time.monotonic()
        assert download.plugin_checksum("vault", "7.14.0") is None
        assert time.monotonic() - began < 3


def test_neither_site_nor_go(project: Project, commands: Commands) -> None:
    commands.add("pulumi", "echo v3.1.0")
    with pytest.raises(BootstrapError, match=r"older than .* cannot be reached, and there is no Go .* Install"):
        engine.ensure(project, {"PATH": str(commands.directory)})


def test_go_too_old(project: Project, commands: Commands) -> None:
    commands.add("go", "echo go1.19.8")
    with pytest.raises(BootstrapError, match=r"is go1\.19\.8\. Install Pulumi, or Go 1\.25"):
        engine.ensure(project, commands.environ())


def test_a_failed_build_shows_its_last_words(project: Project, commands: Commands) -> None:
    commands.add("go", '[ "$1" = env ] && echo go1.26.0 || { echo "disk full"; exit 1; }')
    with pytest.raises(BootstrapError, match="go build failed:\ndisk full"):
        engine.ensure(project, commands.environ())
    assert not (project.engine / "pulumi").exists()


def test_a_choice_is_kept_without_running_anything_until_pulumi_changes(project: Project, commands: Commands) -> None:
    pulumi = add_pulumi(commands, "3.260.0")
    for _ in range(3):
        engine.ensure(project, commands.environ())
    assert Path(f"{pulumi}.runs").read_text() == "ran\n"
    add_pulumi(commands, "3.9.0")
    commands.add("go", GO)
    assert engine.ensure(project, commands.environ()).bin == project.engine


def test_our_own_engine_on_path_is_not_the_users(project: Project, commands: Commands) -> None:
    commands.add("go", GO)
    first = engine.ensure(project, commands.environ())
    commands.add("go", "exit 1")  # nothing is built twice
    environ = commands.environ()
    environ["PATH"] = f"{project.engine}:{environ['PATH']}"
    assert engine.ensure(project, environ) == first
