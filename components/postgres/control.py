"""What pg_controldata says of a data directory, with or without a server on it."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from components.errors import Problem
from components.hosts.base import Host

DEADLINE = 30.0


@dataclass(frozen=True)
class ControlData:
    system_identifier: str
    state: str
    timeline: int
    redo_wal_file: str
    """The WAL file from which this server would replay."""

    @property
    def left_recovery(self) -> bool:
        """Whether it has been a primary: a clone that was started is "in archive recovery" or "shut down in recovery"."""
        return self.state in {"in production", "shut down", "shutting down", "in crash recovery"}


def control_data(host: Host, binaries: PurePosixPath, data: PurePosixPath) -> ControlData:
    """Read global/pg_control by the server's own tool. Raises `Problem` where that is no data directory."""
    output = host.run([str(binaries / "pg_controldata"), "--pgdata", str(data)], deadline=DEADLINE)
    lines = dict(re.findall(r"^([^:\n]+):\s*(.*)$", output, re.MULTILINE))
    try:
        return ControlData(
            system_identifier=lines["Database system identifier"],
            state=lines["Database cluster state"],
            timeline=int(lines["Latest checkpoint's TimeLineID"]),
            redo_wal_file=lines["Latest checkpoint's REDO WAL file"],
        )
    except KeyError as missing:
        raise Problem(f"pg_controldata does not say {missing} of {data}") from None
