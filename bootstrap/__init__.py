"""Makes what the project needs to run, from nothing: the virtual environment, Pulumi's engine, its plugins.

Until the virtual environment is there, this runs on whatever Python made it: standard library only.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said here, before a newer syntax fails
    sys.exit("This project needs Python 3.11 or newer; say which with `make PYTHON=python3.12 ...`.")
