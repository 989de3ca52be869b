"""Which field of a body is wrong, and why: pydantic's errors in the words of a client.

Pydantic names the types of its models, and of a field that may have one of two forms it lists what
each of them lacks.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_OBJECTS = {"model_type", "model_attributes_type", "dict_type"}
_NO_OBJECT = "Input should be an object"

Place = tuple[str | int, ...]


def first_problem(error: ValidationError, value: Any) -> tuple[str, str]:
    """The first wrong field of `value`, with dots between its parts, and what is wrong with it.

    The field is empty for the whole of `value`.
    """
    found = error.errors(include_url=False, include_input=False, include_context=False)
    place = _place(found[0], value)
    if place == found[0]["loc"]:
        return _name(place), _message(found[0])
    of_forms = [*takewhile(lambda each: _place(each, value)[: len(place)] == place, found)]
    # What has one of the forms, and breaks a rule of it; else what has none of them.
    for each in of_forms:
        if _place(each, value) != place or not each["type"].endswith("_type"):
            return _name(_place(each, value)), _message(each)
    return _name(place), " or ".join(dict.fromkeys(map(_message, of_forms)))


def _place(problem: ErrorDetails, value: Any) -> Place:
    """Where in `value` it is: the parts of its location without the names of types."""
    return tuple(_parts(problem["loc"], value, is_missing=problem["type"] == "missing"))


def _parts(location: Sequence[str | int], value: Any, is_missing: bool) -> Iterator[str | int]:
    for index, part in enumerate(location):
        if _has(value, part):
            value = value[part]
        elif not (is_missing and index == len(location) - 1):
            continue
        yield part


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _name(place: Place) -> str:
    return ".".join(map(str, place))


def _message(problem: ErrorDetails) -> str:
    return _NO_OBJECT if problem["type"] in _OBJECTS else problem["msg"]
