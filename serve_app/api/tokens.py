"""What dialects need from a tokenizer, as a protocol."""

from collections.abc import Sequence
from typing import Protocol


class TextTokenizer(Protocol):
    """Text to ids and back."""

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        ...

    def encode(self, text: str, /) -> list[int]:
        """Ids of `text` as ordinary text: a special token's spelling in it stays text."""
        ...

    def decode(self, ids: Sequence[int], /, skip_special: bool = True) -> str:
        """Text of `ids`. Bytes that are not valid UTF-8 become U+FFFD."""
        ...

    def decode_bytes(self, ids: Sequence[int], /) -> bytes:
        """Raw bytes of `ids`. Special and unknown ids have none."""
        ...
