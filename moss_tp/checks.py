"""Reads values of unknown type: numbers, booleans, collections. No ranges, no torch.

Numbers of numpy are numbers; a boolean is none. Each reader raises InvalidRequestError that names
the field, whatever the value is.
"""

import math
import reprlib
from collections.abc import Callable, Collection, Mapping, Set
from numbers import Integral, Real
from typing import Any, TypeVar

from moss_tp.errors import InvalidRequestError

T = TypeVar("T")
# What a C integer and a JSON reader take: an int beyond it is a mistake wherever it is given.
MAX_INT = 2**63 - 1


def integer(field: str, value: object) -> int:
    """An integer of at most 64 bits."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidRequestError(f"{field} is not an integer: {shown(value)}")
    number = int(value)
    if abs(number) > MAX_INT:
        raise InvalidRequestError(f"{field} is out of range: {shown(value)}")
    return number


def number(field: str, value: object) -> float:
    """A finite number. An int stays one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidRequestError(f"{field} is not a number: {shown(value)}")
    try:
        result = int(value) if isinstance(value, Integral) else float(value)
        is_valid = math.isfinite(result)
    except OverflowError:
        is_valid = False
    if not is_valid:
        raise InvalidRequestError(f"{field} is out of range: {shown(value)}")
    return result


def boolean(field: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{field} is not True or False: {shown(value)}")
    return value


def text(field: str, value: object) -> str:
    """A string that can be encoded: without a lone half of a surrogate pair."""
    if not isinstance(value, str):
        raise InvalidRequestError(f"{field} is not a string: {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{field} is not valid Unicode: {shown(value)}") from None
    return value


def optional(read: Callable[[str, object], T]) -> Callable[[str, object], T | None]:
    """`read`, or None."""
    return lambda field, value: None if value is None else read(field, value)


def size(field: str, value: object) -> int:
    """The length of a list, tuple, set or array, before it is read. A string is none of these,
    and neither is a mapping."""
    if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, Collection):
        raise InvalidRequestError(f"{field} is not a list: {shown(value)}")
    try:
        return len(value)
    except (TypeError, OverflowError):  # an array without dimensions, a range beyond memory
        raise InvalidRequestError(f"{field} is not a list: {shown(value)}") from None


def length(field: str, value: object) -> int:
    """The `size` of what has an order, which a set has not."""
    if isinstance(value, Set):
        raise InvalidRequestError(f"{field} is a set, which has no order: {shown(value)}")
    return size(field, value)


def items(field: str, value: Any, limit: int) -> tuple[Any, ...]:
    """The members of what `size` accepts, at most `limit`."""
    if size(field, value) > limit:
        raise InvalidRequestError(f"{field} is out of range: it has more than {limit} members")
    return tuple(value)


def shown(value: object) -> str:
    """A short `repr`, of values too that have none, such as an int of 5,000 digits."""
    try:
        return reprlib.repr(value)
    except Exception:
        return f"a {type(value).__name__}"
