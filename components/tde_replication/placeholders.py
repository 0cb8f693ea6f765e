"""Names that stand for addresses which are not known yet, so that a plan can be made without them.

They lie below a top-level domain that has none (RFC 2606), and nobody is ever asked for them.
"""

DOMAIN = "not-known-yet.invalid"


def placeholder(of: str) -> str:
    return f"{of}.{DOMAIN}"


def is_placeholder(text: str) -> bool:
    """Whether it is one, or was made of one."""
    return DOMAIN in text


def server_of(text: str) -> str:
    """The name of the server whose setting a placeholder stands for."""
    return text.partition(f".{DOMAIN}")[0].rpartition(".")[2]
