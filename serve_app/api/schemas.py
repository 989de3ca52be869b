"""JSON Schemas of what endpoints read and write, for a description of them."""

from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

Direction = Literal["read", "written"]

_REF = "#/components/schemas/{model}"
_MODES: dict[Direction, JsonSchemaMode] = {"read": "validation", "written": "serialization"}


class SchemaBook:
    """Collects types, so that two models of one name get names that differ."""

    def __init__(self) -> None:
        self._entries: list[tuple[JsonSchemaMode, TypeAdapter[Any], dict[str, Any]]] = []

    def schema(self, kind: Any, direction: Direction) -> dict[str, Any]:
        """The schema of a type; it is empty until the book is closed."""
        schema: dict[str, Any] = {}
        self._entries.append((_MODES[direction], TypeAdapter(kind), schema))
        return schema

    def close(self) -> dict[str, Any]:
        """Fills all schemas; returns those of models, to which they refer, by name."""
        inputs = [(number, mode, adapter) for number, (mode, adapter, _) in self._numbered()]
        schemas, rest = TypeAdapter.json_schemas(inputs, ref_template=_REF)
        for number, (mode, _, schema) in self._numbered():
            schema.update(schemas[number, mode])
        definitions: dict[str, Any] = rest.get("$defs", {})
        return definitions

    def _numbered(
        self,
    ) -> list[tuple[int, tuple[JsonSchemaMode, TypeAdapter[Any], dict[str, Any]]]]:
        return list(enumerate(self._entries))
