"""MOSS's tokenizer: text to ids and ids to bytes.

Owns the split between text and structure. Added tokens such as `<eom>` are special: `encode` never
returns one, even for text that spells it, and it decodes to no bytes; `special_id` gives its id.
MOSS's other added tokens are runs of white space, which are text. It is independent of the dialogue
protocol and never runs code from a checkpoint.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RawTokenizer

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json

END_OF_MOSS = "<eom>"


class Tokenizer:
    """`raw` encodes text and has no special tokens; `specials` are their ids by name."""

    def __init__(self, raw: RawTokenizer, specials: dict[str, int], eos_id: int) -> None:
        self._raw = raw
        self._specials = specials
        self._special_names = {token_id: name for name, token_id in specials.items()}
        self.eos_id = eos_id

    @classmethod
    def from_dir(cls, path: str | Path) -> Self:
        """Reads `tokenizer.json`, or `vocab.json`, `merges.txt` and `added_tokens.json`.

        Raises CheckpointError when they are missing, broken or not a byte-level BPE.
        """
        directory = Path(path)
        try:
            if (directory / "tokenizer.json").exists():
                raw, added = _from_tokenizer_json(directory / "tokenizer.json")
            else:
                raw, added = _from_vocab_files(directory)
            specials = _specials(directory, added)
            _add_text_tokens(raw, {k: v for k, v in added.items() if k not in specials})
            return cls(raw, specials, _eos_id(directory, specials))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{directory} has neither a tokenizer.json nor {Path(error.filename).name}"
            ) from error
        # The tokenizers library raises plain Exception for a file that it cannot parse.
        except Exception as error:
            raise CheckpointError(f"the tokenizer in {directory} is broken: {error}") from error

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id. A model's vocabulary may be padded beyond it."""
        return 1 + max(*self._raw.get_vocab().values(), *self._special_names, 0)

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as ordinary text: a special token's spelling in it stays text.

        Releases the GIL, as only the library's batch calls do.
        """
        (encoded,) = self._raw.encode_batch_fast([text], add_special_tokens=False)
        return list(encoded.ids)

    def special_id(self, token: str) -> int:
        """Id of a special token such as `<eoh>`; CheckpointError when there is none."""
        if token not in self._specials:
            raise CheckpointError(f"the model's tokenizer has no token {token}")
        return self._specials[token]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of `ids`. Bytes that are not valid UTF-8 become U+FFFD."""
        pieces = (
            self._special_names[i].encode()
            if not skip_special and i in self._special_names
            else self._bytes_of.get(i, b"")
            for i in ids
        )
        return b"".join(pieces).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Raw bytes of `ids`. Special and unknown ids have none."""
        return b"".join([self._bytes_of.get(i, b"") for i in ids])

    @cached_property
    def _bytes_of(self) -> dict[int, bytes]:
        """Bytes of every id that is not special."""
        text_ids = {token.content for token in self._raw.get_added_tokens_decoder().values()}
        return {
            token_id: token.encode() if token in text_ids else _token_bytes(token)
            for token, token_id in self._raw.get_vocab().items()
            if token_id not in self._special_names
        }


def _from_tokenizer_json(file: Path) -> tuple[RawTokenizer, dict[str, int]]:
    """The tokenizer without its added tokens, and the ids of those by name."""
    fields = read_json(file)
    added = {token["content"]: int(token["id"]) for token in fields.get("added_tokens") or ()}
    raw = RawTokenizer.from_str(json.dumps({**fields, "added_tokens": [], "post_processor": None}))
    if not isinstance(raw.decoder, decoders.ByteLevel):
        raise CheckpointError(f"{file} is not a byte-level tokenizer")
    return raw, added


def _from_vocab_files(directory: Path) -> tuple[RawTokenizer, dict[str, int]]:
    """The same from the files that MOSS was published with."""
    added_file = directory / "added_tokens.json"
    added = read_json(added_file) if added_file.exists() else {}
    for name in ("vocab.json", "merges.txt"):
        if not (directory / name).exists():
            raise FileNotFoundError(2, "missing", str(directory / name))
    model = models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
    raw = RawTokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw, {name: int(token_id) for name, token_id in added.items()}


def _specials(directory: Path, added: dict[str, int]) -> dict[str, int]:
    """Ids of the special tokens: added ones that are not white space, and those in the vocabulary
    that `special_tokens_map.json` names."""
    specials = {name: token_id for name, token_id in added.items() if name.strip()}
    vocab_file = directory / "vocab.json"
    map_file = directory / "special_tokens_map.json"
    if vocab_file.exists() and map_file.exists():
        vocab = read_json(vocab_file)
        names = _names(list(read_json(map_file).values()))
        specials |= {name: int(vocab[name]) for name in names if name in vocab}
    return specials


def _names(values: list[Any]) -> list[str]:
    """Token names in a special_tokens_map: strings, objects with `content`, or lists of those."""
    found: list[str] = []
    for value in values:
        if isinstance(value, list):
            found.extend(_names(value))
        else:
            found.append(value["content"] if isinstance(value, dict) else str(value))
    return found


def _add_text_tokens(raw: RawTokenizer, tokens: dict[str, int]) -> None:
    """Adds the runs of white space. The library assigns ids itself: check that they agree."""
    for name, token_id in sorted(tokens.items(), key=lambda item: item[1]):
        raw.add_tokens([AddedToken(name, normalized=False)])
        if raw.token_to_id(name) != token_id:
            raise CheckpointError(
                f"added token {name!r} should be {token_id}, not {raw.token_to_id(name)}"
            )


def _eos_id(directory: Path, specials: dict[str, int]) -> int:
    """The id that ends a reply: the model config's, else that of `<eom>`."""
    config_file = directory / "config.json"
    configured = read_json(config_file).get("eos_token_id") if config_file.exists() else None
    if configured is not None:
        return int(configured)
    if END_OF_MOSS not in specials:
        raise CheckpointError(f"no token {END_OF_MOSS}")
    return specials[END_OF_MOSS]


def _byte_alphabet() -> dict[str, int]:
    """The byte of each character in GPT-2's byte alphabet: printable bytes are themselves, the
    others are numbered from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + i): byte for i, byte in enumerate(others)
    }


_BYTE_OF = _byte_alphabet()


def _token_bytes(token: str) -> bytes:
    """Bytes of a vocabulary entry. One outside the byte alphabet is plain text."""
    if all(char in _BYTE_OF for char in token):
        return bytes(_BYTE_OF[char] for char in token)
    return token.encode()
