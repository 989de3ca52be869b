"""The Gate of a server without keys: everyone comes in, and a page's cookie is an owner."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_app.access.cookie_jar import CookieJar
from serve_app.access.cookies import PAGE, key_id_of, page_principal
from serve_app.access.gate import Admission, Credentials, Ticket
from serve_app.access.principal import ANONYMOUS, Principal
from serve_app.access.steps import make_lane

MAX_PAGES = 100_000


class OpenGate:
    """A Gate on the store at `url`. Callers without a cookie that it made are all one caller."""

    def __init__(self, url: str) -> None:
        self._lane = make_lane(url)
        self._cookies = CookieJar(self._lane, MAX_PAGES)

    async def principal(self, credentials: Credentials) -> Principal:
        cookie = credentials.cookie or ""
        is_page = await self._cookies.key_id_of(cookie) == PAGE
        return page_principal(cookie) if is_page else ANONYMOUS

    @asynccontextmanager
    async def admit(self, principal: Principal, num_prompt_tokens: int) -> AsyncIterator[Admission]:
        yield Admission(num_prompt_tokens)

    @asynccontextmanager
    async def resume(self, ticket: Ticket) -> AsyncIterator[Admission]:
        yield Admission(ticket.num_tokens)

    async def charge(self, principal: Principal) -> None:
        """Nothing is counted."""

    async def login(self, credentials: Credentials) -> str:
        cookie = credentials.cookie or ""
        if key_id_of(cookie) == PAGE and await self._cookies.renew(cookie):
            return cookie
        return await self._cookies.make(PAGE)

    async def logout(self, cookie: str) -> None:
        await self._cookies.end(cookie)

    async def close(self) -> None:
        await self._lane.close()
