"""URLs of a Vault: which of them may be given a token."""

import ipaddress
import re
from urllib.parse import urlsplit

ADDRESS = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(/[A-Za-z0-9._~-]+)*/?")
"""No more than what every program that gets the address reads in the same way: no user, no query, no escapes."""


def address_mistake(address: str) -> str:
    """Why no token may be sent to `address`; empty: it may."""
    if not ADDRESS.fullmatch(address):
        return f'"{address}" is not the address of a Vault (write https://vault.example.net:8200)'
    if address.startswith("http:") and not on_loopback(address):
        return f"{address} is plain http, and whoever is on the way could read the token: use https (http is for loopback only)"
    return ""


def same_address(one: str, other: str) -> bool:
    """Whether both lead to the same port of the same name."""

    def parts(address: str) -> tuple[str, str | None, int, str]:
        url = urlsplit(address)
        return url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80), url.path.rstrip("/")

    try:
        return parts(one) == parts(other)
    except ValueError:
        return False


def on_loopback(address: str) -> bool:
    """Whether only this machine itself can be meant."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
