"""Makes what the project needs to run, from nothing: the virtual environment, Pulumi's engine, its plugins.

Until the virtual environment is there, this runs on whatever Python made it: standard library only.
"""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - said here, before a newer syntax fails
    sys.exit("This project needs Python 3.11 or newer; name it with `make PYTHON=python3.12 ...`.")

# What it uses of the package, the standard library is enough for.
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "components"))
