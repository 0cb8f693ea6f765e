"""What the pages for contributors name: files and names in backticks."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "components" / "tde_replication"


def quoted(text: str) -> list[str]:
    return [one for line in text.splitlines() for one in re.findall(r"`([^`]+)`", line)]


def is_path(text: str) -> bool:
    return re.fullmatch(r"\w[\w./-]*", text) is not None and ("/" in text or text.endswith((".py", ".md")))


def is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text) is not None and not is_path(text)


def place(path: str) -> Path | None:
    """A path of a page: from the root, or within the package."""
    candidates = (ROOT / path, PACKAGE / path.removeprefix("tde_replication/"))
    return next((one for one in candidates if one.exists()), None)
