"""Values of configuration parameters: when two spellings mean the same, and how the file is written.

PostgreSQL documentation, *Setting Parameters: Parameter Names and Values*.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

LISTS = {
    *("local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries"),
    *("temp_tablespaces", "unix_socket_directories"),
}
"""Parameters whose elements are quoted one by one (GUC_LIST_QUOTE): as one literal they would become one element."""

_BYTES: dict[str, Decimal | int] = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_SECONDS: dict[str, Decimal | int] = {
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
}
_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:\*(\d+))?\s*(B|kB|MB|GB|TB|us|ms|s|min|h|d)?\s*")
_SWITCH = {"on": "on", "true": "on", "yes": "on", "1": "on", "off": "off", "false": "off", "no": "off", "0": "off"}


def same_value(one: str, other: str) -> bool:
    """Whether two spellings of a value mean the same: units, switches, spaces in lists ("64MB" and "8192*8kB" do)."""
    if one == other or _SWITCH.get(one.lower(), one) == _SWITCH.get(other.lower(), other):
        return True
    first, second = _NUMBER.fullmatch(one), _NUMBER.fullmatch(other)
    if first and second:
        if not (first[3] and second[3]):  # a number without a unit counts in the parameter's own
            return Decimal(first[1]) == Decimal(second[1])
        return _quantity(first) == _quantity(second)
    return _elements(one) == _elements(other)


def _quantity(match: re.Match[str]) -> tuple[Decimal, bool]:
    """A number in its base unit, and whether that is the byte (else it is the second)."""
    number, blocks, unit = match.groups()
    value = Decimal(number) * Decimal(blocks or 1)
    return (value * _BYTES[unit], True) if unit in _BYTES else (value * _SECONDS[unit], False)


def _elements(text: str) -> list[str]:
    return [element.strip().strip('"') for element in text.split(",")]


def auto_conf(content: str, former: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """The text of postgresql.auto.conf with `settings` in it, and without `former` ones that are no longer wanted."""
    ours = former.keys() | settings.keys()
    kept = [line for line in content.splitlines() if line.partition("=")[0].strip() not in ours]
    return "\n".join([*kept, *(f"{name} = {quoted(value)}" for name, value in sorted(settings.items()))]) + "\n"


def quoted(value: str) -> str:
    """A value as a configuration file holds it."""
    if "\n" in value or "\0" in value:
        raise ValueError("a configuration parameter cannot hold a line break")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
