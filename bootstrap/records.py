"""What was decided and what it was decided from, so that deciding again costs nothing."""

import json

from bootstrap.project import Project


def read(project: Project, subject: str, key: str) -> dict[str, str] | None:
    """Return the decision about `subject`, unless it was made from something else than `key` says."""
    try:
        record = json.loads((project.local / f"{subject}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return dict(record["decision"]) if record.get("key") == key else None


def write(project: Project, subject: str, key: str, decision: dict[str, str]) -> None:
    path = project.local / f"{subject}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"key": key, "decision": decision}, indent=2))
