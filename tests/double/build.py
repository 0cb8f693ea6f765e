"""Build the contract double of pg_tde (``src/``), installed in a private copy of a PostgreSQL server.

Tests only. The server it is built for is never touched: the double exists in the copy and nowhere else, so nobody can
load it by accident. It encrypts nothing; ``SELECT pg_tde_version()`` says so. What it imitates was measured on a real
pg_tde, and test_contract.py holds both to it.
"""

import hashlib
import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from tde_replication.hosts.account import service_account

HERE = Path(__file__).resolve().parent
MODULE = ("pg_tde", "keys", "keystore", "keyring", "providers", "tableam", "wal", "http")
PROGRAMS = {
    "pg_tde_archive_decrypt": ("fe_archive",),
    "pg_tde_basebackup": ("fe_basebackup", "http"),
    "pg_tde_change_key_provider": ("fe_change_key_provider",),
    "pg_tde_restore_encrypt": ("fe_archive",),
    "pg_tde_rewind": ("fe_rewind",),
}
FLAGS = ("-O1", "-g", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")
OLDEST = 17


class BuildError(Exception):
    """The double cannot be built for this server; the message is one sentence for a person."""


@dataclass(frozen=True)
class Server:
    """Where an installed PostgreSQL has its parts, as its ``pg_config`` says."""

    bin: Path
    lib: Path
    pkglib: Path
    share: Path
    include: Path
    version: str

    @classmethod
    def of(cls, pg_config: Path) -> "Server":
        """Ask `pg_config`, which finds its paths from where it lies."""

        def ask(option: str) -> str:
            return subprocess.run([pg_config, option], check=True, capture_output=True, text=True).stdout.strip()

        def directory(option: str) -> Path:
            return Path(os.path.normpath(ask(option)))

        return cls(
            bin=directory("--bindir"),
            lib=directory("--libdir"),
            pkglib=directory("--pkglibdir"),
            share=directory("--sharedir"),
            include=directory("--includedir-server"),
            version=ask("--version"),
        )

    @property
    def major(self) -> int:
        return int(self.version.split()[1].split(".")[0])

    def parts(self) -> list[Path]:
        """The directories a server needs to run; --libdir only where it is the server's own, not the machine's."""
        own = [self.lib] if self.lib.parent == self.bin.parent else []
        return [self.bin, *dict.fromkeys([*own, self.pkglib, self.share]), *_wheel_libraries(self.bin)]


def build(pg_config: Path, target: Path) -> Path:
    """Copy the server of `pg_config` below `target` with the double in it; return the copy's directory of programs.

    Takes two seconds the first time, nothing when the sources and the server are unchanged. Safe to call at the same
    time from several processes. Raises `BuildError` if the server has a pg_tde already, or is older than 17, or if the
    account that servers run as cannot reach `target`.
    """
    server = Server.of(pg_config)
    _refuse(server)
    root = Path(os.path.commonpath(server.parts()))
    finished = target / f"pg_tde_double-{_digest(server)}"
    if not finished.exists():
        target.mkdir(parents=True, exist_ok=True)
        draft = target / f".{finished.name}.{uuid.uuid4().hex[:8]}"
        try:
            for part in server.parts():
                _copy(part, draft / part.relative_to(root))
            _install(server, draft, root)
            _publish(draft, finished)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    programs = finished / server.bin.relative_to(root)
    if not service_account().can_reach(programs / "postgres"):
        raise BuildError(f"the account {service_account().name!r} cannot reach {programs}: choose another target")
    return programs


def _refuse(server: Server) -> None:
    if server.major < OLDEST:
        raise BuildError(f"the contract double needs PostgreSQL {OLDEST} or later, not {server.version}")
    for file in (server.share / "extension" / "pg_tde.control", server.pkglib / "pg_tde.so"):
        if file.exists():
            raise BuildError(f"this server has a pg_tde already ({file}): test on that, not on a double")


def _digest(server: Server) -> str:
    """A change of any source, or of the server, makes another copy."""
    digest = hashlib.sha256(repr((server, FLAGS, (server.bin / "postgres").stat().st_mtime_ns)).encode())
    for file in sorted([*HERE.glob("src/*"), *HERE.glob("pg_tde*"), Path(__file__)]):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _wheel_libraries(programs: Path) -> list[Path]:
    """auditwheel puts shared libraries next to the package, and programs find them relative to themselves."""
    found = (parent.with_name(f"{parent.name}.libs") for parent in programs.parents if parent.name)
    return [libraries for libraries in found if libraries.is_dir()][:1]


def _copy(source: Path, target: Path) -> None:
    """Hard links where they can be had. No symlinks: PostgreSQL looks for its files next to its program's real path."""
    shutil.copytree(source, target, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    if Path(target).exists():
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)


def _install(server: Server, draft: Path, root: Path) -> None:
    def compiled(*sources: str) -> list[str]:
        return [str(HERE / "src" / f"{source}.c") for source in sources]

    def compile_to(part: Path, name: str, *arguments: str) -> None:
        output = draft / part.relative_to(root) / name
        command = ["gcc", *FLAGS, "-isystem", str(server.include), "-o", str(output), *arguments, "-ldl"]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        if result.returncode != 0:
            raise BuildError(f"gcc could not build {name}:\n{result.stderr}")

    compile_to(server.pkglib, "pg_tde.so", "-shared", "-fPIC", "-fvisibility=default", *compiled(*MODULE))
    for name, sources in PROGRAMS.items():
        compile_to(server.bin, name, *compiled(*sources))
    for file in HERE.glob("pg_tde*"):
        shutil.copy(file, draft / server.share.relative_to(root) / "extension")


def _publish(draft: Path, finished: Path) -> None:
    """In one step; if another process was faster, its copy is as good."""
    try:
        draft.rename(finished)
    except OSError:
        if not finished.exists():
            raise
