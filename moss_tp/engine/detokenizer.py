"""Converts the token ids of one reply to text, piece by piece, at UTF-8 boundaries."""

import codecs
from collections.abc import Sequence
from typing import Protocol


class ByteDecoder(Protocol):
    """The part of a tokenizer that detokenizing needs."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The raw bytes of `ids`. A special token has none."""
        ...


class Detokenizer:
    """The state of one reply. The concatenated pieces are the text of all its ids."""

    def __init__(self, tokenizer: ByteDecoder) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_within = False  # a character

    def push(self, ids: Sequence[int], is_last: bool = False) -> str:
        """The text that became complete with `ids`. With `is_last`, an incomplete character at the
        end becomes U+FFFD."""
        data = self._tokenizer.decode_bytes(ids)
        if not self._is_within:
            try:
                return data.decode()  # whole characters: as the decoder would, and faster
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(data, final=is_last)
        self._is_within = bool(self._decoder.getstate()[0])
        return text
