"""Two resources that only remember a number: what any stack of dynamic resources takes at least."""

from trivial import Number  # type: ignore[import-not-found]  # beside this file: the program is a directory of its own

Number("one", 1)
Number("two", 2)
