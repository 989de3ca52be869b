"""The queries of URLs as pydantic models, which an endpoint declares."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from serve_app.errors import InvalidFieldError

Query = TypeVar("Query", bound=BaseModel)


def parse_query(values: Mapping[str, str | None], model: type[Query]) -> Query:
    """The query of a URL as a `model`; None is not there. Raises InvalidFieldError."""
    try:
        return model.model_validate({k: v for k, v in values.items() if v is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0])
        raise InvalidFieldError(f"{name}: {first['msg']}", name) from error


def query_types(model: type[BaseModel]) -> dict[str, Any]:
    """The types of a query's values by name, for a description of it."""
    return {
        name: Annotated[field.rebuild_annotation(), Field(default=field.default)]
        for name, field in model.model_fields.items()
    }
