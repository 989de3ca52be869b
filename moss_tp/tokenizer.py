"""MOSS's tokenizer: text to ids and ids to bytes.

Owns the split between text and structure. Added tokens such as `<eom>` are special: `encode` never
returns one, even for text that spells it, and it decodes to no bytes; `special_id` gives its id.
MOSS's other added tokens are runs of white space, which are text. It is independent of the dialogue
protocol, obeys no setting that changes or cuts text, and never runs code from a checkpoint.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken
from tokenizers import Tokenizer as RawTokenizer

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json
from moss_tp.tokenizer_files import read_tokenizer_json, read_vocab_files

END_OF_MOSS = "<eom>"
# Every byte that UTF-8 has, and what normalizers, strippers and truncation change.
_PROBE = (
    "".join(map(chr, range(0x0, 0x100)))
    + "".join(map(chr, range(0x100, 0x800, 0x40)))
    + "".join(chr(code) for code in range(0x800, 0x110000, 0x1000) if not 0xD800 <= code < 0xE000)
    + "  ABC Ａ１ ﬁ e\u0301\u212b 한\u1112\u1161 你好  \u3000x\r\n\n\t y \ufeff\u200b🙂 "
)


class Tokenizer:
    """`raw` encodes text and has no special tokens; `specials` are their ids by name; `eos_ids`
    end a reply, the usual one first."""

    def __init__(
        self, raw: RawTokenizer, specials: dict[str, int], eos_ids: tuple[int, ...]
    ) -> None:
        self._raw = raw
        self._specials = specials
        self._special_names = {token_id: name for name, token_id in specials.items()}
        self.eos_ids = eos_ids

    @classmethod
    def from_dir(cls, path: str | Path) -> Self:
        """Reads `tokenizer.json`, or `vocab.json`, `merges.txt` and `added_tokens.json`.

        Raises CheckpointError when they are missing, broken, not a byte-level BPE or one that
        does not keep every byte of a text.
        """
        directory = Path(path)
        try:
            is_one_file = (directory / "tokenizer.json").exists()
            raw, added = (read_tokenizer_json if is_one_file else read_vocab_files)(directory)
            specials = _specials(directory, added)
            _add_text_tokens(raw, {k: v for k, v in added.items() if k not in specials})
        except CheckpointError:
            raise
        # The tokenizers library raises plain Exception for a file that it cannot parse.
        except Exception as error:
            raise CheckpointError(f"the tokenizer in {directory} is broken: {error}") from error
        tokenizer = cls(raw, specials, _eos_ids(directory, specials))
        tokenizer._check_keeps_text(directory)
        return tokenizer

    @property
    def eos_id(self) -> int:
        """The id that usually ends a reply."""
        return self.eos_ids[0]

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
        if len(ids) == 1:  # what a reply gets in a step
            return self._bytes_of.get(ids[0], b"")
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

    def _check_keeps_text(self, directory: Path) -> None:
        """Raises CheckpointError unless text decodes to itself and spells no special token."""
        for text in (_PROBE, *self._specials):
            ids = self.encode(text)
            if spelled := self._special_names.keys() & set(ids):
                name = self._special_names[spelled.pop()]
                raise CheckpointError(
                    f"the tokenizer in {directory} takes text for the special token {name}"
                )
            if (kept := self.decode(ids)) != text:
                raise CheckpointError(
                    f"the tokenizer in {directory} does not keep text: {_difference(text, kept)}"
                )


def _difference(text: str, kept: str) -> str:
    """Where the two first differ."""
    pairs = enumerate(zip(text, kept, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(kept)))
    return f"{text[at : at + 8]!r} becomes {kept[at : at + 8]!r}"


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


def _eos_ids(directory: Path, specials: dict[str, int]) -> tuple[int, ...]:
    """The ids that end a reply: the model config's, one or a list, else that of `<eom>`."""
    file = directory / "config.json"
    configured = read_json(file).get("eos_token_id") if file.exists() else None
    ids = configured if isinstance(configured, list) else [configured]
    if configured is None or not ids:
        if END_OF_MOSS not in specials:
            raise CheckpointError(f"the tokenizer in {directory} has no token {END_OF_MOSS}")
        return (specials[END_OF_MOSS],)
    if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
        raise CheckpointError(f"{file}: the field 'eos_token_id' is {configured!r}, not ids")
    return tuple(sorted(dict.fromkeys(ids), key=lambda i: i != specials.get(END_OF_MOSS)))


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
