"""Files of host keys (sshd(8), *SSH_KNOWN_HOSTS FILE FORMAT*)."""

from pathlib import Path

from tde_replication.errors import UserError
from tde_replication.host_keys import is_key

LARGEST = 1 << 20
MARKERS = ("@cert-authority", "@revoked")


def expect_known_hosts(path: Path) -> None:
    """Refuse a file that holds anything else: ssh takes the lines that fit, of any file. Raises `UserError`."""
    try:
        content = path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else None
    except OSError as error:
        raise UserError(f"host.knownHosts: {path} cannot be read: {error.strerror}") from None
    if content is None:
        raise UserError(f"host.knownHosts: {path} is not a file of host keys: name one in the format of ssh-keyscan")
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in MARKERS:
            words = words[1:]
        if not is_key(" ".join(words[1:3])):
            raise UserError(
                f"host.knownHosts: line {number} of {path} is not a host key: name a file that holds nothing else, in the "
                f"format of ssh-keyscan"
            )
