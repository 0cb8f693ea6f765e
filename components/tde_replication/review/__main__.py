"""python -m tde_replication.review [--format text|markdown|json] [FILE…]: each file is the JSON of one stack's preview."""

import argparse
import sys
from pathlib import Path

from tde_replication.errors import UserError
from tde_replication.review import as_json, as_markdown, as_text, read, review

FORMATS = {"text": as_text, "markdown": as_markdown, "json": as_json}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tde_replication.review", description=__doc__)
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("file", nargs="*", type=Path, help="without any: standard input")
    options = parser.parse_args(arguments)
    texts = [(str(file), file.read_text(errors="replace")) for file in options.file]
    texts = texts or [("standard input", sys.stdin.read())]
    made = FORMATS[options.format]([review(read(text, source)) for source, text in texts])
    sys.stdout.write(made.rstrip("\n") + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
