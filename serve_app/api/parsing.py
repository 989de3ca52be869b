"""Reads what all dialects read: a JSON body into a pydantic model, and the Idempotency-Key header.

Each failure is an InvalidFieldError that names the field.
"""

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from serve_app.errors import InvalidFieldError

Body = TypeVar("Body", bound=BaseModel)

_KEY = re.compile(r"[!-~]{1,255}")


def parse_body(body: bytes, model: type[Body]) -> Body:
    """`body` as a `model`. Raises InvalidFieldError unless it is valid JSON in UTF-8."""
    try:
        return model.model_validate(from_json(body, allow_inf_nan=False))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        where = f"{param}: " if param else ""
        raise InvalidFieldError(f"{where}{first['msg']}", param) from error
    except ValueError as error:
        raise InvalidFieldError(f"the body is not JSON: {error}") from error


def parse_idempotency_key(header: str | None) -> str | None:
    """The value of an Idempotency-Key header; InvalidFieldError unless it is visible ASCII."""
    if header is not None and not _KEY.fullmatch(header):
        raise InvalidFieldError(
            "Idempotency-Key must be 1 to 255 visible ASCII characters", "Idempotency-Key"
        )
    return header
