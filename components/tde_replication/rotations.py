"""Names of a principal key's rotations by its age: each is another key in Vault, named after the first one and counted."""

import re
from collections.abc import Iterable

MARK = "-rotation-"
_NAME = re.compile(rf"(.+){MARK}([1-9]\d{{0,8}})")


def _parts(key: str) -> tuple[str, int]:
    """The declared key, and the number of the rotation; 0 for the declared key itself."""
    found = _NAME.fullmatch(key)
    return (found[1], int(found[2])) if found else (key, 0)


def following(key: str) -> str:
    """The name of the key that replaces `key` when it is rotated."""
    name, number = _parts(key)
    return f"{name}{MARK}{number + 1}"


def declared_name(key: str) -> str:
    """The declared key that `key` is, or is a rotation of."""
    return _parts(key)[0]


def is_rotation(key: str) -> bool:
    return _parts(key)[1] > 0


def is_earlier(key: str, than: str) -> bool:
    """Whether `than` is a later rotation of the same declared key."""
    (name, number), (other, later) = _parts(key), _parts(than)
    return name == other and number < later


def with_rotations(key: str, names: Iterable[str]) -> list[str]:
    """`key` and its rotations among `names`, the newest last."""
    return [key, *sorted((name for name in names if is_earlier(key, name)), key=lambda name: _parts(name)[1])]


def directory(key: str) -> str:
    """The path below a mount that `key` lies in; empty: at its top."""
    return key.rpartition("/")[0]
