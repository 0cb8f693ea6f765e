"""Values of configuration parameters: when two spellings mean the same, and how the file is written.

PostgreSQL documentation, *Setting Parameters: Parameter Names and Values*.
"""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal

LISTS = {
    *("local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries"),
    *("temp_tablespaces", "unix_socket_directories"),
}
"""Parameters whose elements are quoted one by one (GUC_LIST_QUOTE): as one literal they would become one element."""
REWRITTEN = {"datestyle"}
"""Other lists that the server puts into its own spelling."""

_BYTES: dict[str, Decimal | int] = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_SECONDS: dict[str, Decimal | int] = {
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86400,
}
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_NUMBER = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:\*(\d+))?\s*(B|kB|MB|GB|TB|us|ms|s|min|h|d)?\s*")
_SWITCH = {"on": "on", "true": "on", "yes": "on", "1": "on", "off": "off", "false": "off", "no": "off", "0": "off"}
_BEGINNINGS = {word[:length]: value for word, value in _SWITCH.items() for length in range(1, len(word) + 1)}
del _BEGINNINGS["o"]


def is_off(value: str) -> bool:
    """Whether a switch or a number is off, in any spelling that PostgreSQL takes."""
    return switch(value) == "off"


def switch(value: str) -> str:
    """A boolean value as "on" or "off": PostgreSQL takes any beginning of its words that is no other's too."""
    return _BEGINNINGS.get(value.strip().lower(), value)


def same_value(name: str, one: str, other: str, kind: str = "") -> bool:
    """Whether two values of a parameter mean the same: units, switches, spaces in lists ("64MB" and "65536kB" do).

    With `kind`, which is what pg_settings says of the parameter (vartype), `other` is what its server made of `one`: it counts in
    the parameter's own unit, as a number without one does, and keeps whole numbers of it ("100kB" becomes "12*8kB").
    """
    if one == other:
        return True
    if name.lower() in LISTS | REWRITTEN:
        return elements(one) == elements(other)
    first, second = _NUMBER.fullmatch(one), _NUMBER.fullmatch(other)
    if first and second and kind in {"", "integer", "real"}:
        return _same_number(first, second, kept=bool(kind))
    if kind == "bool":
        return switch(one) == switch(other)
    same_word = _SWITCH.get(one.lower(), one) == _SWITCH.get(other.lower(), other)
    return kind in {"", "enum"} and (same_word or (kind == "enum" and one.lower() == other.lower()))


def _same_number(one: re.Match[str], other: re.Match[str], *, kept: bool) -> bool:
    if one[3] and other[3]:
        return _kept(one, other) if kept else _exactly(one, other)
    return bool(kept or one[3] == other[3]) and Decimal(one[1]) == Decimal(other[1])


def _exactly(one: re.Match[str], other: re.Match[str]) -> bool:
    (number, size, in_bytes), (another, step, also_in_bytes) = _quantity(one), _quantity(other)
    return in_bytes == also_in_bytes and number * size == another * step


def _quantity(match: re.Match[str]) -> tuple[Decimal, Decimal, bool]:
    """A number, what one of it is in base units, and whether those are bytes (else seconds)."""
    number, blocks, unit = match.groups()
    size = _BYTES.get(unit) or _SECONDS[unit]
    return Decimal(number), Decimal(blocks or 1) * size, unit in _BYTES


def _kept(one: re.Match[str], other: re.Match[str]) -> bool:
    """Whether `other` is `one` as a parameter holds it that counts in the unit of `other`."""
    (wanted, size, in_bytes), (found, step, also_in_bytes) = _quantity(one), _quantity(other)
    count = wanted * size / step
    if found == found.to_integral_value():
        count = count.to_integral_value(ROUND_HALF_EVEN)
    return in_bytes == also_in_bytes and count == found


def elements(text: str) -> list[str]:
    """The elements of a list, without their quotes."""
    return [element.strip().strip('"') for element in text.split(",")]


def written(name: str, value: str) -> str:
    """A parameter's text as ALTER SYSTEM writes it. A server compares texts: a list in another spelling, which means the same,
    would wait for a restart."""
    if name.lower() not in LISTS:
        return value
    return ", ".join(one if _PLAIN.fullmatch(one) else '"' + one.replace('"', '""') + '"' for one in elements(value))


def auto_conf(content: str, former: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """The text of postgresql.auto.conf with `settings` in it, and without `former` ones that are no longer wanted.

    Theirs are names in lower case; the file may have any.
    """
    managed = {*former, *settings}
    # Not splitlines(): a value may hold what Unicode, and not PostgreSQL, takes for the end of a line.
    lines = content.removesuffix("\n").split("\n") if content else []
    kept = [line for line in lines if line.partition("=")[0].strip().lower() not in managed]
    return (
        "\n".join([*kept, *(f"{name} = {quoted(written(name, text))}" for name, text in sorted(settings.items()))])
        + "\n"
    )


_LINE = re.compile(r"\s*([a-z_][\w$.]*)\s*(?:=\s*|\s)('(?:[^'\\\n]|\\.|'')*'|[^\s'#=][^\s'#]*)", re.IGNORECASE)
_ESCAPED = re.compile(r"\\([0-7]{1,3}|.)|''")
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def values_in(content: str) -> dict[str, str]:
    """What postgresql.auto.conf says, by names in lower case. The last line of a parameter holds."""
    found = (_LINE.match(line) for line in content.split("\n"))
    return {line[1].lower(): _unquoted(line[2]) for line in found if line}


def _unquoted(text: str) -> str:
    if not text.startswith("'"):
        return text

    def character(match: re.Match[str]) -> str:
        escaped = match[1]
        if escaped is None:
            return "'"
        return chr(int(escaped, 8) & 0xFF) if escaped[0] in "01234567" else _CONTROLS.get(escaped, escaped)

    return _ESCAPED.sub(character, text[1:-1])


def quoted(value: str) -> str:
    """A value as a configuration file holds it."""
    if "\n" in value or "\0" in value:
        raise ValueError("a configuration parameter cannot hold a line break")
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
