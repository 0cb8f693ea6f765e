"""Look every locked package up in PyPI's database of known vulnerabilities, by pip-audit.

Ends with 0 where none is known, 1 where one is. Where the database cannot be reached it says so and ends with 0: that is a
skipped check, and the text says that it was skipped. (pip-audit itself ends with 0 there, as if it had found nothing.)
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bootstrap.project import HERE, BootstrapError, say
from bootstrap.venv import DEVELOPMENT

LOCKS = (DEVELOPMENT, "benchmarks/requirements.txt", "policies/requirements.txt")

PATIENCE = 300
"""Seconds for all questions of one lock."""


@dataclass(frozen=True)
class Findings:
    asked: int
    skipped: tuple[str, ...]
    vulnerable: tuple[str, ...]
    """One line for each package and vulnerability."""

    @classmethod
    def parse(cls, text: str) -> "Findings":
        """Read pip-audit's JSON. Raises `BootstrapError` where it is not that."""
        try:
            packages = json.loads(text)["dependencies"]
            skipped = tuple(one["name"] for one in packages if "skip_reason" in one)
            vulnerable = tuple(
                f"{one['name']} {one['version']}: {found['id']}, repaired in {', '.join(found['fix_versions']) or 'no version'}"
                for one in packages
                for found in one.get("vulns", [])
            )
        except (ValueError, KeyError, TypeError):
            raise BootstrapError("pip-audit printed something that is not its JSON report") from None
        return cls(len(packages), skipped, vulnerable)

    def tell(self) -> int:
        """Print the result; the exit status."""
        for line in self.vulnerable:
            say(f"audit: {line}")
        if self.vulnerable:
            return 1
        if len(self.skipped) == self.asked:
            say(
                f"audit: SKIPPED: the database of vulnerabilities cannot be reached; none of {self.asked} packages was checked"
            )
        elif self.skipped:
            say(f"audit: SKIPPED for {', '.join(self.skipped)}: not in the database; the other packages are clean")
        else:
            say(f"audit: no vulnerability is known of {self.asked} packages")
        return 0


def audit(command: Sequence[str]) -> int:
    """The exit status; what was found is printed."""
    try:
        done = subprocess.run(command, cwd=HERE.root, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        say(f"audit: SKIPPED: the database of vulnerabilities did not answer within {PATIENCE} s")
        return 0
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        say(f"audit: SKIPPED: the database of vulnerabilities cannot be asked: {last}")
        return 0
    return Findings.parse(done.stdout).tell()


def audit_of(lock: str) -> int:
    """Of one lock: pip-audit takes a package that is in two of them for a mistake, and asks for none."""
    say(f"audit: {lock}")
    report = ("--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off")
    return audit([sys.executable, "-m", "pip_audit", f"--requirement={lock}", *report])


if __name__ == "__main__":
    try:
        sys.exit(max([audit_of(lock) for lock in LOCKS]))
    except BootstrapError as error:
        sys.exit(f"error: {error}")
