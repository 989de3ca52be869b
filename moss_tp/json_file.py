"""Reads JSON: the files of a model directory, their numbers, and the bytes of any other file."""

import json
from pathlib import Path
from typing import Any

from moss_tp.errors import CheckpointError
from moss_tp.lfs import check_not_pointer

_HINT = "; one in GBK is converted by `iconv -f GB18030 -t UTF-8`"


class JSONError(ValueError):
    """Bytes that are not good JSON: for which `reason`, and in which line, if that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


def read_json(file: Path) -> dict[str, Any]:
    """The object in `file`. Raises CheckpointError, naming file and line, when there is none."""
    try:
        check_not_pointer(file)
        fields = parse_json(file.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {file}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return fields


def parse_json(raw: bytes) -> Any:
    """The value that `raw` spells in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Raises JSONError for what is not JSON, nested too deeply or with too many digits to be read, or
    has two values for one key.
    """
    encoding = json.detect_encoding(raw)
    try:
        return json.loads(raw.decode(encoding), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise JSONError(f"the text is not {encoding.upper()}{_HINT}", line) from error
    except json.JSONDecodeError as error:
        raise JSONError(f"{error.msg} at column {error.colno}", error.lineno) from error
    except RecursionError as error:
        raise JSONError("it is nested too deeply") from error
    except JSONError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise JSONError(str(error)) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        for key, value in pairs:
            if fields[key] != value:
                raise JSONError(f"it has two values for the key {key!r}")
    return fields


def integer_field(fields: dict[str, Any], name: str, default: int | None = None) -> int:
    """The field as an integer; a null is as good as none. Raises ValueError that names it."""
    number = number_field(fields, name, default)
    if number != number // 1:
        raise ValueError(f"the field {name!r} is {number!r}, not an integer")
    return int(number)


def number_field(fields: dict[str, Any], name: str, default: float | None = None) -> float:
    """The field as a number, as `integer_field`."""
    value = fields.get(name)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"the field {name!r} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the field {name!r} is {value!r}, not a number")
    return value
