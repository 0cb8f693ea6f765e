"""The operating-system account that servers on this machine run as, and where their files may lie.

PostgreSQL refuses to run as root. An ordinary user runs servers as itself; root drops to ``postgres`` where that account
exists, else to ``nobody``.
"""

import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path.cwd()
"""The directory of the Pulumi program: the engine starts programs and their providers in it."""


@dataclass(frozen=True)
class Account:
    name: str
    uid: int
    gid: int

    @property
    def switches(self) -> bool:
        """Whether a process of ours must change its user to become this account."""
        return self.uid != os.geteuid()

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command as this account. setpriv does it, for Python's own way forks, which gRPC in this process minds."""
        if not self.switches:
            return list(command)
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--", *command]

    def can_reach(self, path: Path) -> bool:
        """Whether this account may enter every directory above `path`, and read and enter what lies there."""
        if not self.switches:
            return os.access(path, os.R_OK)
        return all(self._allowed(parent, 0o1) for parent in path.resolve().parents) and self._allowed(
            path, 0o5 if path.is_dir() else 0o4
        )

    def _allowed(self, path: Path, bits: int) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            bits <<= 6
        elif status.st_gid == self.gid:
            bits <<= 3
        return status.st_mode & bits == bits


def is_only_for(place: Path, accounts: Collection[int]) -> bool:
    """Whether nobody but these accounts, by number, may change this file, or put anything else into this directory's places."""
    found = place.lstat()
    if found.st_uid not in accounts:
        return False
    if stat.S_ISLNK(found.st_mode) or (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return True  # of a link, the directory decides; in a sticky directory, everybody changes what is their own
    shared = found.st_mode & stat.S_IWGRP and not _is_of_one(found.st_gid, found.st_uid)
    return not shared and not found.st_mode & stat.S_IWOTH


def _is_of_one(group: int, account: int) -> bool:
    """Whether a group is that of one account alone, as most systems make one for every user."""
    try:
        owner, members = pwd.getpwuid(account), set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    return owner.pw_gid == group and members <= {owner.pw_name}


def service_account() -> Account:
    """The account that local servers run as: this user, or, for root, an unprivileged one."""
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid())
    else:
        known = {user.pw_name: user for user in pwd.getpwall()}
        entry = known.get("postgres") or known["nobody"]
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def local_root(project: Path) -> Path:
    """Where the embedded default keeps servers, Vault and logs of `project`: ``.local`` in it, or, where the service
    account cannot enter the project (a clone below /root), a directory of its own under /var/lib."""
    account = service_account()
    if account.can_reach(project):
        return project / ".local"
    digest = hashlib.sha256(str(project.resolve()).encode()).hexdigest()[:8]
    return Path("/var/lib/tde-replication") / digest
