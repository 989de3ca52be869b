"""Reads conversations in MOSS's published JSON format into segments of the dialogue protocol.

`chat` holds `turn_1`, `turn_2`, …, each with `Human`, `Inner Thoughts`, `Commands`, `Tool
Responses` and `MOSS`, or only `Human` and `MOSS` for models without plugins. Nothing is tokenized
here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_tp.dialogue import Segment, parse_segment
from moss_tp.errors import MossError


class ConversationError(MossError):
    """A conversation that is not in MOSS's published format."""


@dataclass(frozen=True)
class Conversation:
    """A meta instruction and the segments of each turn."""

    meta_instruction: str
    turns: tuple[tuple[Segment, ...], ...]


def parse_conversation(published: Mapping[str, Any]) -> Conversation:
    """The conversation of one published JSON object. Raises ConversationError."""
    try:
        chat = published["chat"]
        turns = [chat[f"turn_{index}"] for index in range(1, int(published["num_turns"]) + 1)]
        segments = tuple(tuple(map(parse_segment, turn.values())) for turn in turns)
        return Conversation(published["meta_instruction"], segments)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        number = published.get("conversation_id", "?") if isinstance(published, Mapping) else "?"
        raise ConversationError(f"conversation {number}: {error}") from error


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Conversations of a .jsonl file (one a line), a .json file (one) or a folder of the latter."""
    if path.is_dir():
        for file in sorted(path.glob("*.json")):
            yield from read_conversations(file)
    elif path.suffix == ".json":
        yield _parse(path.read_text(encoding="utf-8"), str(path))
    else:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _parse(line, f"{path}:{number}")


def _parse(text: str, place: str) -> Conversation:
    try:
        return parse_conversation(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConversationError(f"{place} is not JSON: {error}") from error
