"""Rendered replies, those that were used last, up to a number of bytes."""

import hashlib
import time
from collections import OrderedDict
from math import inf

MAX_BYTES = 16 * 1024 * 1024
_OVERHEAD = 300  # bytes of an entry besides its text, roughly


class BlockCache:
    """The blocks of whole texts, by the texts."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[tuple[str, ...], int, float]] = OrderedDict()
        self.num_bytes = 0

    def get(self, text: str) -> tuple[str, ...] | None:
        key = _key(text)
        if key not in self._entries:
            return None
        blocks, _, ends_at = self._entries[key]
        if time.monotonic() >= ends_at:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return blocks

    def put(self, text: str, blocks: tuple[str, ...], for_s: float = inf) -> None:
        """Keeps them for `for_s` seconds, if there is room for so long."""
        key = _key(text)
        self._drop(key)
        size = _OVERHEAD + sum(4 * len(block) for block in blocks)
        if size > self._max_bytes:
            return
        self._entries[key] = blocks, size, time.monotonic() + for_s
        self.num_bytes += size
        while self.num_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.num_bytes -= entry[1]


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=32).digest()
