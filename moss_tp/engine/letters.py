"""A tokenizer's part in an engine whose weights are random: its text means nothing anyway."""

from collections.abc import Sequence


class Letters:
    """Every id is a letter; the first id ends a reply."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (0,)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """See `ByteDecoder`."""
        return bytes(97 + token_id % 26 for token_id in ids)
