"""A dynamic resource whose provider asks nobody. In a module of its own, so that the state holds a reference and no code."""

from typing import Any

from pulumi import dynamic


class NumberProvider(dynamic.ResourceProvider):
    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        return dynamic.CreateResult("number", props)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        return dynamic.ReadResult(id_, props, props)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        return dynamic.DiffResult(changes=olds["number"] != news["number"])


class Number(dynamic.Resource, module="floor", name="Number"):
    def __init__(self, name: str, number: int) -> None:
        super().__init__(NumberProvider(), name, {"number": number})
