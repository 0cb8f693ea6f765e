"""Public keys by which ssh knows machines, as in `*.pub` files and as ssh-keyscan writes them (sshd(8))."""

import base64
import re

KINDS = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+")


def is_key(text: str) -> bool:
    """Whether it is a kind of key and, in base 64, a key of that kind."""
    kind, _, encoded = text.partition(" ")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    return bool(KINDS.fullmatch(kind)) and key.startswith(len(kind).to_bytes(4, "big") + kind.encode())


def host_keys(text: str) -> list[str]:
    """The keys in a text, one a line: "kind key", or "names kind key" for machines of these names; without comments.

    Raises `ValueError` with one sentence.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        names = [] if is_key(" ".join(words[:2])) else words[:1]
        key = " ".join(words[len(names) : len(names) + 2])
        if not is_key(key) or not line.isprintable() or any(name.startswith("@") for name in names):
            where = f"line {number} of it" if "\n" in text.strip() else f'"{line[:80]}"'
            raise ValueError(f"{where} is not a host key (write ssh-ed25519 AAAA…, or a line of ssh-keyscan)")
        found.append(" ".join([*names, key]))
    if not found:
        raise ValueError("it holds no host key (write ssh-ed25519 AAAA…, or a line of ssh-keyscan)")
    return found


def is_bare(line: str) -> bool:
    """Whether one of `host_keys` names no machine."""
    return is_key(line)
