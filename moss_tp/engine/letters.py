"""A tokenizer's part in an engine whose weights are random: its text means nothing anyway."""

from collections.abc import Sequence
from typing import NoReturn

from moss_tp.errors import InvalidRequestError


class Letters:
    """Every id is a letter; the first id ends a reply."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (0,)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """See `ByteDecoder`."""
        return bytes([97 + token_id % 26 for token_id in ids])

    def decode(self, ids: Sequence[int]) -> str:
        return self.decode_bytes(ids).decode()

    def encode(self, text: str) -> NoReturn:
        """Raises InvalidRequestError."""
        raise InvalidRequestError("the model has no tokenizer: a prompt is a list of token ids")
