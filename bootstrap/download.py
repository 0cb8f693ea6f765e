"""Pulumi's releases: what is downloaded is installed only if it has the checksum that Pulumi publishes elsewhere.

The archives come from Pulumi's download site; their SHA-256 comes from GitHub's record of the same release, which another party
serves. So whoever can change one of the two cannot change what runs here. Where the record cannot be reached, nothing is
downloaded. (GitHub documentation, *Verifying the integrity of your release assets*: the `digest` of an asset.)
"""

import functools
import hashlib
import json
import platform
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable

from bootstrap.project import BootstrapError, Project, say

SITE = "https://get.pulumi.com"
RELEASES = "https://api.github.com/repos/pulumi"
PATIENCE = 2.0
"""Seconds until a site that does not answer is taken for one that cannot be reached."""
TRANSFER = 300.0
"""Seconds for an archive."""
RECORD_BYTES = 4 << 20
ARCHIVE_BYTES = 1 << 30
CHUNK = 1 << 20
ARCHITECTURES = {"x86_64": ("x64", "amd64"), "aarch64": ("arm64", "arm64")}
"""As `platform` says it: as Pulumi's engine and as its plugins name it."""


def plugin_checksum(name: str, version: str) -> str | None:
    """The SHA-256 of a plugin's archive for this machine; None where no record of it can be reached."""
    system, (_, architecture) = _machine()
    return _checksum(f"pulumi-{name}", version, f"pulumi-resource-{name}-v{version}-{system}-{architecture}.tar.gz")


def install_engine(project: Project, version: str) -> bool:
    """Put Pulumi's engine into `.local/engine`; False where it cannot be reached. Raises `BootstrapError` where what comes is
    not what was published."""
    system, (architecture, _) = _machine()
    archive = f"pulumi-v{version}-{system}-{architecture}.tar.gz"
    wanted = _checksum("pulumi", version, archive)
    if wanted is None:
        return False
    target = project.engine.parent
    target.mkdir(parents=True, exist_ok=True)
    path = target / archive
    try:
        digest = hashlib.sha256()
        with path.open("wb") as file:

            def take(data: bytes) -> None:
                digest.update(data)
                file.write(data)

            if not _fetch(f"{SITE}/releases/sdk/{archive}", take, seconds=TRANSFER, most=ARCHIVE_BYTES):
                say(f"engine: {SITE} does not send {archive}")
                return False
        if digest.hexdigest() != wanted:
            raise BootstrapError(
                f"{archive} from {SITE} is not what Pulumi published (its SHA-256 is {digest.hexdigest()}, and {RELEASES} says "
                f"{wanted}): nothing was installed. Try again later, or install Pulumi yourself"
            )
        unpacked = target / "unpacked"
        with tarfile.open(path) as contents:
            contents.extractall(unpacked, filter="data")
        shutil.rmtree(project.engine, ignore_errors=True)
        (unpacked / "pulumi").rename(project.engine)
        unpacked.rmdir()
    finally:
        path.unlink(missing_ok=True)
    return (project.engine / "pulumi").exists()


def _machine() -> tuple[str, tuple[str, str]]:
    """Name this machine as Pulumi does: the system; its architecture, for the engine and for a plugin."""
    name = platform.machine().lower()
    return sys.platform, ARCHITECTURES.get(name, (name, name))


def _checksum(repository: str, version: str, archive: str) -> str | None:
    assets = _release(repository, version)
    if assets is None:
        return None
    digest = assets.get(archive) or ""
    if not digest.startswith("sha256:"):
        say(f"{RELEASES}/{repository} has no checksum of {archive}: it is not downloaded")
        return None
    return digest.removeprefix("sha256:")


@functools.cache
def _release(repository: str, version: str) -> dict[str, str | None] | None:
    """The checksums of a release's archives by their names; None where they cannot be had."""
    if not _reachable():
        return None
    parts: list[bytes] = []
    if not _fetch(
        f"{RELEASES}/{repository}/releases/tags/v{version}", parts.append, seconds=PATIENCE * 5, most=RECORD_BYTES
    ):
        say(f"{RELEASES}/{repository} does not report the checksums of v{version}: nothing of it is downloaded")
        return None
    try:
        return {asset["name"]: asset.get("digest") for asset in json.loads(b"".join(parts))["assets"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a portal that answers everything with a page of its own


@functools.cache
def _reachable() -> bool:
    """Whether the record of releases answers at all, asked once."""
    return _fetch(RELEASES.partition("/repos")[0] + "/", lambda _: None, seconds=PATIENCE, most=RECORD_BYTES)


def _fetch(url: str, take: Callable[[bytes], object], *, seconds: float, most: int) -> bool:
    """Give `take` what is there, piece by piece; False where it does not come whole within `seconds` and `most` bytes."""
    import http.client  # noqa: PLC0415 - these two take longer to import than all the rest takes
    import urllib.request  # noqa: PLC0415

    done: list[bool] = []
    late = threading.Event()

    def fetch() -> None:
        size = 0
        try:
            with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310
                while data := answer.read(CHUNK):
                    size += len(data)
                    if late.is_set() or size > most:
                        return
                    take(data)
        except (OSError, ValueError, http.client.HTTPException):
            return
        done.append(True)

    # A thread, since the timeout holds neither for a name server that keeps silent nor for a site that drips.
    attempt = threading.Thread(target=fetch, daemon=True)
    attempt.start()
    attempt.join(seconds)
    late.set()
    return bool(done)


def clear() -> None:
    """Forget what was asked."""
    _reachable.cache_clear()
    _release.cache_clear()
