"""Reads a tokenizer's files into the library's tokenizer, without their settings.

A file may ask for truncation, padding, a normalizer, a prefix space, BPE dropout or a template of
special tokens. All of them change, cut or add to the text, so none is kept.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json
from moss_tp.lfs import check_not_pointer

# All that a model directory may have of these, and of what serving puts in front of a chat.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "meta_instruction.txt",
)
# What a tokenizer.json must not have, and what stands for nothing there.
_NOTHING: dict[str, Any] = {
    "added_tokens": [],
    "normalizer": None,
    "padding": None,
    "post_processor": None,
    "truncation": None,
}


def read_tokenizer_json(directory: Path) -> tuple[Tokenizer, dict[str, int]]:
    """The tokenizer without its added tokens, and the ids of those by name."""
    file = directory / "tokenizer.json"
    fields = read_json(file)
    added = {token["content"]: int(token["id"]) for token in fields.get("added_tokens") or ()}
    for part in _parts(fields.get("pre_tokenizer")):
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = False
    if isinstance(model := fields.get("model"), dict):
        model["dropout"] = None
    raw = Tokenizer.from_str(json.dumps({**fields, **_NOTHING}))
    if not isinstance(raw.decoder, decoders.ByteLevel):
        raise CheckpointError(f"{file} is not a byte-level tokenizer")
    return raw, added


def read_vocab_files(directory: Path) -> tuple[Tokenizer, dict[str, int]]:
    """The same from `vocab.json`, `merges.txt` and, where there is one, `added_tokens.json`: the
    files that MOSS was published with."""
    for name in ("vocab.json", "merges.txt"):
        if not (directory / name).exists():
            raise CheckpointError(f"{directory} has neither a tokenizer.json nor {name}")
    added_file = directory / "added_tokens.json"
    added = read_json(added_file) if added_file.exists() else {}
    merges = _read_merges(directory / "merges.txt")
    raw = Tokenizer(models.BPE(vocab=read_json(directory / "vocab.json"), merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw, {name: int(token_id) for name, token_id in added.items()}


def _parts(pre_tokenizer: Any) -> list[dict[str, Any]]:
    """A pre-tokenizer's fields, or those of each in a sequence."""
    if not isinstance(pre_tokenizer, dict):
        return []
    inner = pre_tokenizer.get("pretokenizers")
    return inner if isinstance(inner, list) else [pre_tokenizer]


def _read_merges(file: Path) -> list[tuple[str, str]]:
    """The pairs of a merges.txt, one a line, whatever system's line ends it has."""
    check_not_pointer(file)
    lines = file.read_text(encoding="utf-8-sig").split("\n")
    merges = []
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r")
        if not text or (number == 1 and text.startswith("#version")):
            continue
        left, _, right = text.partition(" ")
        if not left or not right or " " in right:
            raise CheckpointError(f"{file}:{number} is not a pair of tokens: {text!r}")
        merges.append((left, right))
    return merges
