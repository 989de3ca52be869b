"""The Gate of a server with keys: a key or its cookie, then the limits of that key."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from serve_app.access.api_key import ApiKey, environment_key
from serve_app.access.gate import Admission, Credentials, Gate, Ticket
from serve_app.access.key_book import KeyBook
from serve_app.access.limiter import Limiter
from serve_app.access.open_gate import OpenGate
from serve_app.access.principal import Limits, Principal
from serve_app.api_secret import digest_of
from serve_app.errors import InvalidKeyError

_WRONG = "the API key is wrong or revoked"
_MISSING = "an API key is needed, as Authorization: Bearer KEY"
_ENDED = "the page's login has ended; log in again"


class KeyGate:
    """A Gate on a book of keys. `own` is a key that is valid without the store."""

    def __init__(self, book: KeyBook, limiter: Limiter, own: ApiKey | None = None) -> None:
        self._book = book
        self._limiter = limiter
        self._own = own

    async def principal(self, credentials: Credentials) -> Principal:
        if credentials.key is not None:
            return (await self._key(credentials.key)).principal
        if credentials.cookie is None:
            raise InvalidKeyError(_MISSING)
        return (await self._cookies_key(credentials.cookie)).principal

    def admit(
        self, principal: Principal, num_prompt_tokens: int
    ) -> AbstractAsyncContextManager[Admission]:
        if principal.limits == Limits():
            return _admitted(num_prompt_tokens)
        return self._limiter.admit(principal.key_id, principal.limits, num_prompt_tokens)

    def resume(self, ticket: Ticket) -> AbstractAsyncContextManager[Admission]:
        return self._limiter.resume(ticket)

    async def charge(self, principal: Principal) -> None:
        await self._limiter.charge(principal.key_id, principal.limits)

    async def login(self, credentials: Credentials) -> str:
        if credentials.key is not None:
            return await self._book.cookies.make((await self._key(credentials.key)).id)
        if (cookie := credentials.cookie) is None:
            raise InvalidKeyError(_MISSING)
        await self._cookies_key(cookie)
        if not await self._book.cookies.renew(cookie):
            raise InvalidKeyError(_ENDED)
        return cookie

    async def logout(self, cookie: str) -> None:
        await self._book.cookies.end(cookie)

    async def close(self) -> None:
        await asyncio.gather(self._book.close(), self._limiter.close())

    async def _key(self, secret: str) -> ApiKey:
        own = self._own
        if own is not None and hmac.compare_digest(own.digest, digest_of(secret)):
            return own
        if (key := await self._book.find(secret)) is None:
            raise InvalidKeyError(_WRONG)
        return key

    async def _cookies_key(self, cookie: str) -> ApiKey:
        """The key that a cookie was traded for."""
        key_id = await self._book.cookies.key_id_of(cookie)
        if key_id is not None and self._own is not None and key_id == self._own.id:
            return self._own
        key = None if key_id is None else await self._book.find_by_id(key_id)
        if key is None:
            raise InvalidKeyError(_ENDED)
        return key


def create_gate(store: str, is_required: bool, own_digest: str | None = None) -> Gate:
    """The gate of a server whose sessions are in the store at that URL."""
    if not is_required:
        return OpenGate(store)
    own = None if own_digest is None else environment_key(own_digest)
    return KeyGate(KeyBook(store), Limiter(store), own)


@asynccontextmanager
async def _admitted(num_tokens: int) -> AsyncIterator[Admission]:
    yield Admission(num_tokens)
