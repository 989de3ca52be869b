"""Reads conversations in MOSS's published JSON format into segments of the dialogue protocol.

`chat` holds `turn_1`, `turn_2`, …, each with `Human`, `Inner Thoughts`, `Commands`, `Tool
Responses` and `MOSS`, or only `Human` and `MOSS` for models without plugins. Nothing is tokenized
here.
"""

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_tp.dialogue import Segment, parse_segment
from moss_tp.errors import MossError
from moss_tp.json_file import JSONError, parse_json
from moss_tp.lfs import check_not_pointer


class ConversationError(MossError):
    """A conversation that is not in MOSS's published format."""


@dataclass(frozen=True)
class Conversation:
    """A meta instruction and the segments of each turn."""

    meta_instruction: str
    turns: tuple[tuple[Segment, ...], ...]


def parse_conversation(published: Mapping[str, Any]) -> Conversation:
    """The conversation of one published JSON object. Raises ConversationError."""
    if not isinstance(published, Mapping):
        raise ConversationError("a conversation is a JSON object")
    try:
        return Conversation(
            _text(published["meta_instruction"], "meta_instruction"), tuple(_turns(published))
        )
    except KeyError as error:
        reason = f"{error} is missing"
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        reason = str(error)
    raise ConversationError(f"conversation {published.get('conversation_id', '?')}: {reason}")


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Conversations of a .jsonl file (one a line), a .json file (one) or a folder of the latter.

    Blank lines are skipped. Raises ConversationError, which names file and line, and
    CheckpointError for a git-LFS pointer.
    """
    try:
        if path.is_dir():
            for file in sorted(path.glob("*.json")):
                yield from read_conversations(file)
            return
        check_not_pointer(path)
        if path.suffix == ".json":
            yield _parse(path.read_bytes(), path)
        else:
            yield from _read_lines(path)
    except OSError as error:
        raise ConversationError(f"{path} cannot be read: {error.strerror}") from error


def _read_lines(path: Path) -> Iterator[Conversation]:
    """Lines end at a newline only: U+2028 and U+0085 are text."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1 and line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                raise ConversationError(f"{path} is UTF-16, not UTF-8")
            if line.removeprefix(BOM_UTF8).strip():
                yield _parse(line, path, number)


def _parse(raw: bytes, file: Path, number: int | None = None) -> Conversation:
    """The conversation in `raw`: line `number` of `file`, or the whole of it."""
    try:
        return parse_conversation(parse_json(raw))
    except JSONError as error:
        line = error.line if number is None else number
        reason = f" is not JSON: {error.reason}"
    except ConversationError as error:
        line, reason = number, f": {error}"
    raise ConversationError(f"{file}{'' if line is None else f':{line}'}{reason}")


def _turns(published: Mapping[str, Any]) -> Iterator[tuple[Segment, ...]]:
    """The segments of each turn. Raises KeyError or ValueError for what is not in the format."""
    chat, count = published["chat"], int(published["num_turns"])
    if count < 1 or count != len(chat):
        raise ValueError(f"num_turns is {count}, but chat has {len(chat)} turns")
    for index in range(1, count + 1):
        turn = chat[f"turn_{index}"]
        if not turn:
            raise ValueError(f"turn_{index} is empty")
        yield tuple(
            parse_segment(_text(text, f"{name} of turn_{index}")) for name, text in turn.items()
        )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise ValueError(f"{name} has half of a surrogate pair, {half!r}") from error
    return value
