"""The door as a protocol: who a caller is, and whether it may start work now."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from serve_app.access.principal import Principal


@dataclass(frozen=True)
class Credentials:
    """What a request shows: an API key, the page's cookie, or neither."""

    key: str | None = None
    cookie: str | None = None


@dataclass
class Admission:
    """Admitted work. `num_tokens` was charged at the door; set it to what was really used, prompt
    and reply together, before the work ends."""

    num_tokens: int = 0


class Gate(Protocol):
    """Answers for all requests of a server."""

    async def principal(self, credentials: Credentials) -> Principal:
        """The caller. Raises InvalidKeyError for a missing or wrong key, StoreUnavailableError."""
        ...

    def admit(
        self, principal: Principal, num_prompt_tokens: int
    ) -> AbstractAsyncContextManager[Admission]:
        """Counts a running turn for the block. Raises RateLimitError, with the seconds to wait, if
        the caller has used up a limit."""
        ...

    async def charge(self, principal: Principal) -> None:
        """Counts a request that is not admitted.

        Raises RateLimitError and StoreUnavailableError.
        """
        ...

    async def login(self, key: str | None) -> str:
        """A new cookie for the page, in exchange for `key`; for none where there are no keys.

        Raises InvalidKeyError and StoreUnavailableError.
        """
        ...

    async def logout(self, cookie: str) -> None:
        """Ends a cookie, if there is such a one. Raises StoreUnavailableError."""
        ...

    async def close(self) -> None: ...
