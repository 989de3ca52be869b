"""A real Gate on a real store, and keys to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serve_app.access.api_key import ApiKey, make_key
from serve_app.access.key_book import KeyBook
from serve_app.access.key_gate import KeyGate
from serve_app.access.limiter import Limiter
from serve_app.access.principal import Limits


@dataclass
class KeyRing:
    """`gate` sees what `book` changes at once. `keys` are all that were made, by their secrets."""

    gate: KeyGate
    book: KeyBook
    keys: dict[str, ApiKey]

    async def make(
        self,
        owner: str = "ann",
        *,
        models: tuple[str, ...] | None = None,
        plugins: tuple[str, ...] | None = None,
        is_admin: bool = False,
        limits: Limits | None = None,
    ) -> str:
        """The secret of a new key."""
        key, secret = make_key(
            owner, models=models, plugins=plugins, is_admin=is_admin, limits=limits
        )
        await self.book.add(key)
        self.keys[secret] = key
        return secret

    async def revoke(self, secret: str) -> None:
        assert await self.book.revoke(self.keys[secret].id)


@asynccontextmanager
async def key_ring(store_url: str) -> AsyncIterator[KeyRing]:
    """A gate that requires keys, for the length of the block."""
    book = KeyBook(store_url, fresh_s=0)
    gate = KeyGate(book, Limiter(store_url))
    try:
        yield KeyRing(gate, book, {})
    finally:
        await gate.close()
