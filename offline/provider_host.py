"""Starts Pulumi's process for dynamic providers so that it ends with its engine from its first moment on.

Pulumi's own `python -m pulumi.dynamic` waits for ever when its engine goes before it has configured a provider: until then, none
of a stack's code is loaded that could watch. Only an engine of this project's own uses it.
"""

import runpy
import sys
from pathlib import Path

WATCH = Path(__file__).resolve().parents[1] / "components" / "engine_watch.py"

if __name__ == "__main__":
    runpy.run_path(str(WATCH))["end_with_engine"](sys.argv[1])
    sys.path[0] = str(Path.cwd())  # as `python -m` has it
    runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)
