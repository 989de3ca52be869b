"""Token ids of one reply to text, piece by piece, never splitting a UTF-8 character."""

import codecs
from collections.abc import Sequence
from typing import Protocol


class ByteDecoder(Protocol):
    """What this module needs of a tokenizer."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The raw bytes of `ids`; a special token has none."""
        ...


class Detokenizer:
    """State of one reply. The pieces joined are the text of all its ids."""

    def __init__(self, tokenizer: ByteDecoder) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Sequence[int], is_last: bool = False) -> str:
        """Text that became complete with `ids`; what is still cut at the end becomes U+FFFD."""
        return self._decoder.decode(self._tokenizer.decode_bytes(ids), final=is_last)
