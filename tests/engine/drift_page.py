"""docs/drift.md, made of the drift table: `python -m tests.engine.drift_page > docs/drift.md`."""

from itertools import groupby

from tests.engine.drift import NO_DRIFT, REFUSALS, ROWS

HEAD = """\
# Drift

`pulumi preview` reads every resource from the live servers first (`options.refresh: always`), so what was changed behind its
back shows as a planned repair, `drifted => declared`; `pulumi up` makes it. Every row below is a test that runs on the real
engine: it does what the second column says, compares the plan, runs `up`, and wants the next preview to be empty. This page
is made of the same table.

## What is repaired

| resource | what happened | `up` plans | what it takes |
|---|---|---|---|
"""
REFUSED = """
## What is refused

Nothing is changed; the message says why, and what to do.

| resource | what happened | the message says |
|---|---|---|
"""
QUIET = """
## What is no drift

| resource | what happened |
|---|---|
"""
TAIL = """
Nor are an LSN, a lag, a process id, a checkpoint, or load: no resource
holds what changes by itself. With the primary down, its own Server resource says so and plans the start; what lies inside it
is shown as last known, with a note.

## What cannot be seen

* The value of the replication secret in Vault: pulumi-vault does not compare it. Standbys do not read it; their passfiles are
  compared.
* Whether a running server has loaded a `pg_hba.conf` that was changed within the same second as its last load.
* A principal key that is set for nothing: pg_tde has no call that lists keys.
"""


def page() -> str:
    parts = [HEAD]
    for resource, rows in groupby(sorted(ROWS, key=lambda row: row.resource), key=lambda row: row.resource):
        for row in rows:
            plan = ", ".join(f"{step} {name}" for name, step in sorted(row.plan.items()))
            parts.append(f"| {resource} | {row.what} | {plan} | {row.repair} |\n")
    parts.append(REFUSED)
    parts += [f"| {refusal.resource} | {refusal.what} | … {refusal.says.strip(' (')} … |\n" for refusal in REFUSALS]
    parts.append(QUIET)
    parts += [f"| {resource} | {what} |\n" for resource, what, _ in NO_DRIFT]
    return "".join([*parts, TAIL])


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
