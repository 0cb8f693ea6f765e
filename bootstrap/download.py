"""Pulumi's download site: whether it can be reached, asked once and for two seconds at most."""

import functools
import shutil
import threading

from bootstrap.project import BootstrapError, Project, run_quietly, say

SITE = "https://get.pulumi.com"
PATIENCE = 2.0  # seconds


@functools.cache
def installer() -> bytes | None:
    """Pulumi's install script, or None where its site cannot be reached."""
    import http.client  # noqa: PLC0415 - these two take longer to import than all the rest takes
    import urllib.request  # noqa: PLC0415

    found: list[bytes] = []

    def fetch() -> None:
        try:
            with urllib.request.urlopen(f"{SITE}/install.sh", timeout=PATIENCE) as answer:  # noqa: S310
                found.append(answer.read())
        except (OSError, ValueError, http.client.HTTPException):
            return

    # A thread, since the timeout does not hold for a name server that keeps silent.
    attempt = threading.Thread(target=fetch, daemon=True)
    attempt.start()
    attempt.join(PATIENCE)
    # A portal that answers everything with a page of its own is no download site.
    return found[0] if found and found[0].startswith(b"#!") else None


def install_engine(project: Project, version: str) -> bool:
    """Have Pulumi's installer put its engine into `.local/engine`; whether that worked."""
    script = installer()
    if script is None:
        return False
    target = project.engine.parent
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    path = target / "install.sh"
    path.write_bytes(script)
    arguments = ["--version", version, "--install-root", str(target), "--no-edit-path"]
    try:
        run_quietly(["sh", path, *arguments], f"the installer of {SITE}")
    except BootstrapError as error:
        say(str(error))
        return False
    return (project.engine / "pulumi").exists()
