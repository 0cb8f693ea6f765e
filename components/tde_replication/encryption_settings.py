"""`tables` of the stack file: which tables are encrypted, and which are not."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from tde_replication.host_settings import Settings
from tde_replication.values import Identifier

SHORT = 3
"""Parts of the short form: database, schema, table."""


def _glob(text: str) -> str:
    if found := re.search(r"[\[\]{}\\]", text):
        raise ValueError(f'"{text}" holds "{found[0]}": a pattern knows * (any characters) and ? (any one)')
    return text


Glob = Annotated[Identifier, AfterValidator(_glob)]
"""A name, with * for any characters and ? for any one."""


class Tables(Settings):
    """A mapping, or in short ``database.schema.table``. The first of the patterns that a table matches decides. In names, ``*``
    stands for any characters, and ``?`` for any one."""

    database: Glob = "*"
    """Of those that have the extension."""
    schema_name: Glob = Field(default="*", alias="schema")
    table: Glob = "*"
    """Also a partition or a materialized view."""
    encrypted: bool = True
    """Whether `up` encrypts what matches (SET ACCESS METHOD tde_heap), or brings it back into clear (heap)."""

    @model_validator(mode="before")
    @classmethod
    def _of_short_form(cls, values: Any) -> Any:
        if not isinstance(values, str):
            return values
        parts = values.split(".")
        if len(parts) != SHORT:
            raise ValueError(
                f'"{values}" is not database.schema.table (write "app.public.*"; for a name with a dot, {{database: app, '
                "schema: public, table: …})"
            )
        return dict(zip(("database", "schema", "table"), parts, strict=True))

    def is_of(self, database: str) -> bool:
        """Whether it is about tables of this database."""
        wild = {"*": ".*", "?": "."}
        expression = "".join(wild.get(char) or re.escape(char) for char in self.database)
        return re.fullmatch(expression, database, re.DOTALL) is not None
