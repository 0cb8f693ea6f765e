"""Inputs of resources as a person reads them."""

import json
from collections.abc import Mapping
from typing import Any

from tde_replication.review.preview import SECRET, UNKNOWN

ABSENT = object()
_WORDS = {UNKNOWN: "(known during up)", SECRET: "(secret)"}


def flat(inputs: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in inputs.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def shown(value: Any) -> str | None:
    return None if value is ABSENT else _WORDS.get(value, value) if isinstance(value, str) else as_words(value)


def as_words(value: Any) -> str:
    """A list, a number or the like: as JSON, without quotes around texts."""
    if isinstance(value, list):
        return f"[{', '.join(shown(one) or '' for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(one)}" for key, one in value.items()) + "}"
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
