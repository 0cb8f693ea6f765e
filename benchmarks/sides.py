"""What is measured on this machine, each side in a directory of its own."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from benchmarks import processes
from benchmarks.by_hand import ByHand
from benchmarks.others import Ansible, Pglift, Tools, install
from benchmarks.ours import Ours
from benchmarks.patroni import Patroni
from benchmarks.place import BenchmarkError
from benchmarks.stack import Floor
from bootstrap.project import say
from tde_replication.hosts.installation import Installation


class Sides:
    def __init__(self, root: Path, installation: Installation, remark: Callable[[str], None]) -> None:
        self._root = root
        self.installation = installation
        self._remark = remark

    @contextmanager
    def ours(self, *standbys: str) -> Iterator[Ours]:
        with self.directory("ours") as directory:
            ours = Ours(directory, self.installation)
            ours.declare(*standbys)
            ours.init()
            yield ours

    @contextmanager
    def script(self, name: str = "script") -> Iterator[ByHand]:
        with self.directory(name) as directory:
            yield ByHand(directory, self.installation)

    @contextmanager
    def floor(self) -> Iterator[Floor]:
        with self.directory("floor") as directory:
            floor = Floor(directory)
            floor.init()
            yield floor

    @contextmanager
    def other(self, kind: type[Ansible] | type[Pglift]) -> Iterator[Ansible | Pglift | None]:
        """None where it cannot be had here; a remark says why."""
        if not self._tools or (kind is Pglift and not self._tools.account_can_run):
            yield None
            return
        with self.directory(kind.__name__.lower()) as directory:
            yield kind(directory, self.installation, self._tools)

    @contextmanager
    def patroni(self) -> Iterator[Patroni | None]:
        """None where it cannot be had here; a remark says why."""
        if not self._tools or not self._tools.account_can_run:
            yield None
            return
        with self.directory("patroni") as directory:
            yield Patroni(directory, self.installation, self._tools)

    @cached_property
    def _tools(self) -> Tools | None:
        say("installing Ansible, pglift and Patroni below the scratch directory")
        try:
            tools = install(self._root)
        except BenchmarkError as error:
            self._remark(f"DID NOT RUN against Ansible, pglift and Patroni: {error}")
            return None
        if not tools.account_can_run:
            self._remark(
                "DID NOT RUN against pglift and Patroni: they run as the servers' account, which cannot run this Python."
            )
        return tools

    @contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """A side's own; when it goes, no process of that side is left to slow down the other."""
        directory = self._root / name
        directory.mkdir()
        directory.chmod(0o755)
        os.sync()
        yield directory
        processes.end_all()
        shutil.rmtree(directory)
