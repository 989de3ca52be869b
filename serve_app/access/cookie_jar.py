"""The page's cookies in the store: each is kept as a digest, with the key for which it was made."""

from serve_app.access import scripts
from serve_app.access.cookies import MAX_AGE_S, key_id_of, new_cookie
from serve_app.access.steps import run_script
from serve_app.api_secret import digest_of
from serve_app.store.lane import Lane
from serve_app.store.script import Arg, Script

MAX_COOKIES = 1000  # of a key


class CookieJar:
    """The cookies in the store behind `lane`. All of it raises StoreUnavailableError."""

    def __init__(self, lane: Lane, max_cookies: int = MAX_COOKIES) -> None:
        self._lane = lane
        self._max_cookies = max_cookies

    async def make(self, key_id: str) -> str:
        """A cookie that ends with the key. The oldest of too many end."""
        cookie = new_cookie(key_id)
        await self._run(scripts.LOGIN, cookie, MAX_AGE_S * 1000, self._max_cookies)
        return cookie

    async def renew(self, cookie: str) -> bool:
        """Whether `cookie` is good, and lives from now on as long as a new one."""
        if key_id_of(cookie) is None:
            return False
        return bool(await self._run(scripts.RENEW, cookie, MAX_AGE_S * 1000))

    async def key_id_of(self, cookie: str) -> str | None:
        """The id of the key that `cookie` was made for; None if it has ended, or nobody made it."""
        key_id = key_id_of(cookie)
        return key_id if key_id and await self._run(scripts.IS_LOGGED_IN, cookie) else None

    async def end(self, cookie: str) -> None:
        """From now on it opens nothing, if it ever did."""
        if key_id_of(cookie) is not None:
            await self._run(scripts.LOGOUT, cookie)

    async def _run(self, script: Script, cookie: str, *args: Arg) -> int | None:
        keys = (scripts.cookies_of(key_id_of(cookie) or ""),)
        result: int | None = await run_script(self._lane, script, keys, digest_of(cookie), *args)
        return result
