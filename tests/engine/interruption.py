"""Ends a running `pulumi` at a chosen moment, as a crash or a person would, and tells what is left of it."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.engine.cluster import Cluster
from tests.engine.workspace import Output, eventually
from tests.official import is_official

STEP = re.compile(
    r"^\s*[+~-]+\s+(?:pulumi-python:dynamic/\w+|vault:\w+):(\S+) (.+?) "
    r"(creating|updating|deleting|replacing)(?: \w+)? \(0s\)",
)
QUIET = 0.3
"""Seconds without a change of the provider's and the plugins' processor time: they have done what they were asked to."""


@dataclass(frozen=True)
class Process:
    pid: int
    command: str

    @property
    def ticks(self) -> int:
        """Its processor time; 0 when it is gone."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0
        return int(fields[11]) + int(fields[12])

    @property
    def is_pulumis(self) -> bool:
        """Whether it is one of Pulumi's own programs, which may go on for minutes when their engine was killed."""
        try:
            return is_official(Path(f"/proc/{self.pid}/exe").readlink().name)
        except OSError:
            return False


def processes(cluster: Cluster) -> Iterator[Process]:
    """All of this stack's: pulumi with its plugins, and what works on the data directories, the servers themselves not."""
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        try:
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            environment = (place / "environ").read_bytes().decode(errors="replace")
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
            program = (place / "exe").readlink().name
        except OSError:
            continue
        if (
            state != "Z"
            and program != "postgres"
            and any(mark in command or mark in environment for mark in cluster.marks)
        ):
            yield Process(int(place.name), command)


def providers(cluster: Cluster) -> list[Process]:
    return [
        process
        for process in processes(cluster)
        if "pulumi.dynamic" in process.command or "provider_host.py" in process.command
    ]


def strays_gone(cluster: Cluster) -> None:
    """Everything that was started for the work has ended by itself."""
    deadline = time.monotonic() + 30
    while left := [process for process in processes(cluster) if not process.is_pulumis]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    for process in processes(cluster):
        os.kill(process.pid, signal.SIGKILL)


Kill = Callable[[Cluster, int], object]
"""Ends the `pulumi` of a process id, or something that works for it."""


def kill_engine(cluster: Cluster, engine: int) -> None:
    """Kill -9 of the command, in the middle of a step."""
    del cluster
    os.kill(engine, signal.SIGKILL)


def lose_state(cluster: Cluster, engine: int) -> None:
    """Kill -9 of the command when its steps are done and it has not heard of it: what is made now is in no state."""
    os.kill(engine, signal.SIGSTOP)
    workers = [process for process in processes(cluster) if process.pid != engine]
    before, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET:
        time.sleep(0.02)
        busy = sum(process.ticks for process in workers) + sum(
            process.ticks for process in processes(cluster) if process not in workers and process.pid != engine
        )
        if busy != before:
            before, since = busy, time.monotonic()
    os.kill(engine, signal.SIGKILL)


def kill_provider(cluster: Cluster, engine: int) -> None:
    """Kill -9 of the dynamic provider's process."""
    del engine
    for process in providers(cluster):
        os.kill(process.pid, signal.SIGKILL)


def kill_primary(cluster: Cluster, engine: int) -> None:
    """Kill -9 of PostgreSQL, where it runs by then."""
    del engine
    if cluster.running("db1"):
        cluster.kill("db1")


def kill_standby(cluster: Cluster, engine: int) -> None:
    del engine
    if cluster.running("db2"):
        cluster.kill("db2")


def kill_vault(cluster: Cluster, engine: int) -> None:
    """Kill -9 of the Vault; somebody starts it before the next run."""
    del engine
    cluster.bao.kill()


def ctrl_c(cluster: Cluster, engine: int) -> None:
    """As a person's terminal does: to the command and all that works for it."""
    del cluster
    os.killpg(engine, signal.SIGINT)


def ctrl_c_twice(cluster: Cluster, engine: int) -> None:
    ctrl_c(cluster, engine)
    os.kill(engine, signal.SIGINT)


OF_SERVERS = (kill_primary, kill_standby, kill_vault)
"""Kills that the command itself may outlive, and even come to its end with."""
OF_A_PERSON = (ctrl_c, ctrl_c_twice)
"""After which it ends what it has begun, and says by its exit status whether that was all (of `destroy`: not even that)."""


def interrupted(cluster: Cluster, command: list[str], kill: Kill, at: Callable[[str], bool]) -> tuple[Output, str]:
    """Run `command`, and `kill` at the first step that `at` takes; its output, and that step ("" if it came to its end)."""
    with cluster.workspace.start(*command, "--yes", "--skip-preview") as process:
        assert process.stdout
        lines, step = [], ""
        for line in process.stdout:
            lines.append(line)
            found = STEP.match(line)
            if found and not step and at(name := " ".join(found.groups())):
                step = name
                kill(cluster, process.pid)
        process.wait(timeout=120)
    return Output(process.returncode, "".join(lines)), step


def at_every_step(
    cluster: Cluster, command: list[str], kill: Kill, begin: Callable[[], object], among: str = ""
) -> list[str]:
    """Run `command` again and again, each time killed at a step at which it was not killed before, until there is none left.

    Each run starts from what the killed one left; from the beginning, which `begin` makes, after one whose exit status says that
    it came to its end in spite of it. `among`: a pattern of the steps that count.
    """
    done: list[str] = []
    begin()
    while True:
        output, step = interrupted(
            cluster, command, kill, lambda name: name not in done and bool(re.search(among, name))
        )
        strays_gone(cluster)
        if not step:
            assert output.code == 0, output.errors or output.text
            return done
        if kill in OF_SERVERS:
            assert "Traceback" not in output.text, output.text
            cluster.bao.start()
        elif kill in OF_A_PERSON:
            assert "Traceback" not in output.text, output.text
        else:
            assert output.code != 0
        done.append(step)
        cluster.workspace.unlock()
        if output.code == 0:
            begin()


def destroyed_after_every_step(
    cluster: Cluster, kill: Kill, among: str, nothing_left: Callable[[], object]
) -> list[str]:
    """Run `up` again and again, each time killed at another step and taken away at once, until it comes to its end."""
    done: list[str] = []
    while True:
        output, step = interrupted(
            cluster, ["up"], kill, lambda name: name not in done and bool(re.search(among, name))
        )
        strays_gone(cluster)
        cluster.workspace.unlock()
        destroyed = cluster.workspace.destroy()
        assert destroyed.code == 0, (step, destroyed.errors)
        nothing_left()
        if not step:
            assert output.code == 0, output.errors or output.text
            return done
        done.append(step)


def whole(cluster: Cluster) -> None:
    """The cluster is as declared, once, with nothing beside it."""
    standbys = cluster.names[1:]
    assert leftovers(cluster) == []
    assert cluster.sql("db1", "SELECT slot_name FROM pg_replication_slots ORDER BY 1") == [
        (f"tde_{name}",) for name in standbys
    ]
    assert cluster.sql("db1", "SELECT count(*) FROM pg_roles WHERE rolname = 'replicator'") == [(1,)]
    hba = (cluster.data("db1") / "pg_hba.conf").read_text()
    assert hba.count("tde-replication") == 1, hba
    eventually(lambda: cluster.streaming() == [f"tde_{name}" for name in standbys])
    cluster.workspace.unchanged()


def leftovers(cluster: Cluster) -> list[str]:
    """Drafts, and directories set aside, anywhere below the cluster's own."""
    found = [*cluster.base.rglob(".*.new"), *cluster.base.rglob(".*.unfinished"), *cluster.base.rglob("*set-aside*")]
    return [str(path.relative_to(cluster.base)) for path in found]
