"""Reads the JSON files of a model directory."""

import json
from pathlib import Path
from typing import Any

from moss_tp.errors import CheckpointError


def read_json(file: Path) -> dict[str, Any]:
    """The object in `file`. Raises CheckpointError, naming the file, when there is none."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {file}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return fields
