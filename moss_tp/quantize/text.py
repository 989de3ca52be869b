"""Reads the text that a model is calibrated and measured on, into sequences of token ids.

    *.json, a folder of them   MOSS's conversations, as `moss finetune` reads them
    *.jsonl                    a conversation or {"text": …} a line
    any other file             UTF-8 text, of which the first 16 MiB count

A conversation is one sequence of as many whole turns as fit; a text is cut into pieces.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moss_tp.errors import ConfigError
from moss_tp.finetune.conversation import Conversation, parse_conversation, read_conversations
from moss_tp.finetune.example import build_example
from moss_tp.json_file import JSONError, parse_json
from moss_tp.lfs import check_not_pointer
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.tokenizer import Tokenizer

Ids = tuple[int, ...]
_MAX_TEXT = 16 << 20  # bytes
_SPARE = 4  # as many times more are drawn than are wanted: some are too short or alike
_MIN_IDS = 2
_KEPT_OUT = 5  # at most one in so many


@dataclass(frozen=True)
class Sequences:
    """Those to calibrate with, and those to measure on, of which none is among the former."""

    calibration: tuple[Ids, ...]
    held_out: tuple[Ids, ...]


def read_sequences(settings: QuantizeSettings, tokenizer: Tokenizer, positions: int) -> Sequences:
    """Drawn by the seed. A file with fewer sequences than are wanted gives all it has.

    Raises ConfigError for one with too few to measure, or that cannot be read.
    """
    length, seed = min(settings.length, positions), settings.seed
    wanted = settings.samples + settings.held_out
    drawn = draw(settings.calibration, tokenizer, length, wanted, seed)
    if settings.evaluate is None:
        count = min(settings.held_out, max(1, len(drawn) // _KEPT_OUT))
        held_out, rest = drawn[:count], drawn[count:]
    else:
        held_out = draw(settings.evaluate, tokenizer, length, settings.held_out, seed)
        rest = [ids for ids in drawn if ids not in set(held_out)]
    if not rest or not held_out:
        raise ConfigError(f"{settings.calibration} has too little text to calibrate and measure")
    return Sequences(tuple(rest[: settings.samples]), tuple(held_out[: settings.held_out]))


def draw(path: Path, tokenizer: Tokenizer, length: int, wanted: int, seed: int) -> list[Ids]:
    """Up to `wanted` different sequences of at most `length` tokens, in random order.

    Raises ConfigError or ConversationError for a file that cannot be read.
    """
    rng = random.Random(seed)
    found: dict[Ids, None] = {}
    for document in _sample(_documents(path), _SPARE * wanted, rng):
        found |= dict.fromkeys(_pieces(document, tokenizer, length))
    sequences = [ids for ids in found if len(ids) >= _MIN_IDS]
    rng.shuffle(sequences)
    return sequences[:wanted]


def digest(sequences: Iterable[Ids]) -> str:
    """Tells sets of sequences apart."""
    sha = hashlib.sha256()
    for ids in sequences:
        sha.update(f"{ids}\n".encode())
    return sha.hexdigest()


def _sample(
    documents: Iterable[Conversation | str], count: int, rng: random.Random
) -> list[Conversation | str]:
    """`count` of any number of documents, each as likely as another (reservoir sampling)."""
    kept: list[Conversation | str] = []
    for number, document in enumerate(documents):
        if number < count:
            kept.append(document)
        elif (place := rng.randrange(number + 1)) < count:
            kept[place] = document
    return kept


def _pieces(document: Conversation | str, tokenizer: Tokenizer, length: int) -> Iterator[Ids]:
    if isinstance(document, Conversation):
        example = build_example(tokenizer, document, length)
        yield from () if example is None else (tuple(example.ids),)
        return
    ids = tokenizer.encode(document)
    for start in range(0, len(ids), length):
        yield tuple(ids[start : start + length])


def _documents(path: Path) -> Iterator[Conversation | str]:
    if path.is_dir() or path.suffix == ".json":
        yield from read_conversations(path)
        return
    check_not_pointer(path)
    if path.suffix == ".jsonl":
        yield from _lines(path)
    else:
        with path.open("rb") as opened:
            raw = opened.read(_MAX_TEXT)
        # The limit may cut a character.
        yield _decoded(raw if len(raw) < _MAX_TEXT else raw[: raw.rfind(b"\n") + 1], path)


def _lines(path: Path) -> Iterator[Conversation | str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                fields = parse_json(line)
            except JSONError as error:
                raise ConfigError(f"{path}:{number} is not JSON: {error.reason}") from error
            if isinstance(fields, dict) and isinstance(fields.get("text"), str):
                yield fields["text"]
            else:
                yield _conversation(fields, f"{path}:{number}")


def _conversation(fields: object, where: str) -> Conversation:
    if not isinstance(fields, dict) or "chat" not in fields:
        raise ConfigError(f"{where} is neither a conversation of MOSS's nor has it a text")
    return parse_conversation(fields)


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8") from error
