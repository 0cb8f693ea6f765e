"""What every reconciler is: declared fields, and how the live world is read and brought to them. No Pulumi in it."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, SecretStr
from pydantic.alias_generators import to_camel

from tde_replication.records import Cost, Fact

Told = TypeVar("Told", Cost, Fact)
Secret = Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value)]
"""A value that is shown nowhere; its field's name is in the resource's `secrets` too."""


class Resource(BaseModel, ABC):
    """One thing that can drift. An instance holds its fields as declared, as last known, or, from `read`, as they are.

    Fields are compared one by one, so each is named as PostgreSQL names it and holds what a person would compare. What
    changes by itself (an LSN, a pid, a lag) is no field.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    replaced_by: ClassVar[frozenset[str]] = frozenset()
    """Fields whose change cannot be made in place."""
    delete_before_replace: ClassVar[bool] = True
    """Whether the old one must be gone before its replacement is made, as where both would have one name."""
    computed: ClassVar[frozenset[str]] = frozenset()
    """What `create` finds out: not declared, not compared. Other resources must take it from `identity`, for an output that
    is no input is unknown in the preview of a mere update, and would look like a replacement to them."""
    secrets: ClassVar[frozenset[str]] = frozenset()
    not_compared: ClassVar[frozenset[str]] = frozenset()
    """Fields that say how to reach or handle the thing, not what it is: stored when they change, without work."""
    called: ClassVar[str] = ""
    """Name of the Pulumi type, if it differs from the name of the class."""
    create_only: ClassVar[frozenset[str]] = frozenset()
    """Inputs that only `create` and `update` use. A change of one of them alone is not a difference."""

    @property
    def row(self) -> str:
        """The URN of the row of Pulumi's display that its progress is shown in; empty: the stack's."""
        return ""

    @property
    def place(self) -> tuple[str, str]:
        """Host and data directory of the server that it is of now; empty: of no single one."""
        return "", ""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Its name in Pulumi's state: what a person would call it."""

    @abstractmethod
    def read(self) -> Self | None:
        """The same thing as it is now; None where it is gone.

        Raises `Unavailable` where the server that would know does not answer: the last known state then stands.
        """

    @abstractmethod
    def create(self) -> Self:
        """Make it, or take over what matches (an interrupted run may have left it). Refuses what does not."""

    @abstractmethod
    def update(self, live: Self) -> Self:
        """Bring `live` to what is declared, in place."""

    @abstractmethod
    def delete(self) -> None:
        """Take it away. It may be gone already."""

    def changed(self, old: Self) -> set[str]:
        """The names of the fields that differ from `old` in a way that needs work."""
        passed = self.computed | self.not_compared | self.create_only
        return {name for name in type(self).model_fields if name not in passed and self._differs(name, old)}

    def replacing(self, old: Self) -> set[str]:
        """Those of them whose change cannot be made in place."""
        return self.changed(old) & self.replaced_by

    def refusal(self, live: Self) -> str | None:
        """Why `live` must not be brought to what is declared: told at preview, and nothing is changed. None: it may."""
        del live
        return None

    def refusal_while_unknown(self, live: Self, fields: Collection[str]) -> str | None:
        """The same at a preview that does not know some `fields` yet; here they are as they were."""
        del live, fields
        return None

    def costs(self, live: Self | None) -> Iterable[Cost]:
        """The side effects of the change (a restart, a full copy), one for each server that it reaches: told at preview. `live`
        is None for a create."""
        del live
        return ()

    def facts(self) -> Iterable[Fact]:
        """What policies want to know of it besides, asked only where they do (`records.FACTS`); it is as `read` has found it."""
        return ()

    def placed(self, told: Told) -> Told:
        """With the place of the server that it is of, unless that is said already."""
        if told.data_directory:
            return told
        host, directory = self.place
        return replace(told, host=host, data_directory=directory)

    def stores(self, old: Self) -> bool:
        """Whether what says how to reach or handle it is another than in `old`: Pulumi's state is to hold that."""
        names = self.not_compared | ({"host"} & type(self).model_fields.keys()) - self.create_only
        return any(getattr(self, name) != getattr(old, name) for name in names)

    def _differs(self, name: str, old: Self) -> bool:
        return bool(getattr(self, name) != getattr(old, name))

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)


class Unchanging(Resource):
    """Has its place among the others, and nothing behind it that changes."""

    def read(self) -> Self:
        return self

    def create(self) -> Self:
        return self

    def update(self, live: Self) -> Self:
        del live
        return self
