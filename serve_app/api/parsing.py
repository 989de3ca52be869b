"""Reads what all dialects read: a JSON body into a pydantic model, and the Idempotency-Key header.

Each failure is an InvalidFieldError that names the field. JSON is read strictly, for what one
reader takes and another refuses or sees otherwise ends in stores, logs and replies: UTF-8, each
key once, whole characters, finite numbers of 64 bits, and at most 200 values within each other.
"""

import re
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Annotated, Any, TypeVar

from jiter import from_json
from pydantic import BaseModel, Field, ValidationError

from serve_app.api.problems import first_problem
from serve_app.errors import InvalidFieldError

Body = TypeVar("Body", bound=BaseModel)

# Signed and unsigned: seeds are written either way.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
_KEY = re.compile(r"[!-~]{1,255}")
_KEY_HELP = (
    "Makes the retry of a stored turn safe. One that starts a chat, without a uid, has at least 16"
    " characters. Replies without a chat are not stored, and made again."
)
IdempotencyKey = Annotated[str, Field(pattern=f"^{_KEY.pattern}$", description=_KEY_HELP)]
_MAX_NAME, _MAX_MESSAGE = 100, 300  # characters; names in a message may be a client's


def needs_body(model: type[BaseModel]) -> bool:
    """Whether a field of `model` is required. Else no body at all is as good as `{}`."""
    return any(field.is_required() for field in model.model_fields.values())


def parse_body(body: bytes, model: type[Body]) -> Body:
    """`body` as a `model`. Raises InvalidFieldError unless it is valid, strict JSON, or nothing
    where nothing is required."""
    value = {} if not body and not needs_body(model) else _strict_json(body)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        name, message = first_problem(error, value)
        param = name[:_MAX_NAME] or None
        where = f"{param}: " if param else ""
        raise InvalidFieldError(f"{where}{message}"[:_MAX_MESSAGE], param) from error


def _strict_json(body: bytes) -> Any:
    try:
        value = from_json(body, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        raise InvalidFieldError(f"the body is not JSON: {error}"[:_MAX_MESSAGE]) from error
    for name, field in value.items() if isinstance(value, dict) else ():
        if not all(map(_is_machine_number, _leaves(field))):
            where = name[:_MAX_NAME]
            raise InvalidFieldError(f"{where}: a number is not finite or beyond 64 bits", where)
    return value


def _leaves(value: Any) -> Iterator[Any]:
    """Everything in `value` that is neither a list nor a dict."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            pending += each.values()
        elif isinstance(each, list):
            pending += each
        else:
            yield each


def _is_machine_number(value: Any) -> bool:
    if isinstance(value, int):
        return MIN_INTEGER <= value <= MAX_INTEGER
    return not isinstance(value, float) or isfinite(value)


def at_most_one(name: str, values: Sequence[str]) -> str | None:
    """The value of a header or of a query's field. Raises InvalidFieldError for several of them."""
    if len(values) > 1:
        raise InvalidFieldError(f"{name[:_MAX_NAME]}: it is there twice", name[:_MAX_NAME])
    return values[0] if values else None


def parse_idempotency_key(header: str | None) -> str | None:
    """The value of an Idempotency-Key header; InvalidFieldError unless it is visible ASCII."""
    if header is not None and not _KEY.fullmatch(header):
        raise InvalidFieldError(
            "Idempotency-Key must be 1 to 255 visible ASCII characters", "Idempotency-Key"
        )
    return header
