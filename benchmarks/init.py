"""python -m benchmarks.init COMMAND …: run it, and wait for every process that it leaves behind, as a machine's init does.

Patroni waits until a server that it has stopped is gone; this benchmark's own process waits for nobody while it measures.
"""

import os
import subprocess
import sys
from contextlib import suppress

from benchmarks.processes import adopt_orphans

if __name__ == "__main__":
    adopt_orphans()
    subprocess.Popen(sys.argv[1:])
    with suppress(ChildProcessError):
        while True:
            os.wait()
