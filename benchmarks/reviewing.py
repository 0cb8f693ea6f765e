"""(o): what 100 previews mean, as the one comment of a pull request."""

from benchmarks.place import cost
from benchmarks.sides import Sides
from benchmarks.table import Row, Table, at_most
from bootstrap.project import HERE

STACKS = 100
LIMIT = 2.0


def measure(sides: Sides, table: Table) -> None:
    """One preview of a stack that is not made yet, under 100 names: every resource of it is planned."""
    row = table.row(
        Row("o", f"review of {STACKS} previews of 1 + 1", "s", at_most(LIMIT, lambda row: row.ours, f"{LIMIT:g} s"))
    )
    work = table.row(Row("o", "the same", "CPU s"))
    with sides.ours("standby1") as ours:
        ours.vault()
        log = ours.root / "events"
        ours.pulumi("preview", "--stack", ours.stack, "--event-log", str(log))
        text = log.read_text()
        files = [ours.root / f"preview{n}.json" for n in range(STACKS)]
        for n, file in enumerate(files):
            file.write_text(text.replace(f"urn:pulumi:{ours.stack}::", f"urn:pulumi:orders{n}::"))
        command = [str(HERE.python), "-m", "tde_replication.review", "--format", "markdown", *map(str, files)]
        for _ in table.pairs("o"):
            spent = cost(lambda: ours.run(*command))
            row.ours.append(spent.seconds)
            work.ours.append(spent.cpu)
    table.remark(f"(o) each preview: {len(text) / 2**20:.2f} MiB of events")
