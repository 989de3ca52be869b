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


@dataclass(frozen=True)
class Ticket:
    """What a running turn of a key's limits is settled by, by whoever ends it.

    `num_tokens` were charged at the door, to a key with that limit of `tokens_per_min`, or none.
    """

    id: str
    key_id: str
    tokens_per_min: int | None
    num_tokens: int


@dataclass
class Admission:
    """Admitted work. `num_tokens` was charged at the door; set it to what was really used, prompt
    and reply together, before the work ends.

    Work that another process goes on with `is_left` to that, by its `ticket`: None if the caller
    has no limits.
    """

    num_tokens: int = 0
    ticket: Ticket | None = None
    is_left: bool = False


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

    def resume(self, ticket: Ticket) -> AbstractAsyncContextManager[Admission]:
        """Goes on with work that was admitted elsewhere, and left, for the block."""
        ...

    async def charge(self, principal: Principal) -> None:
        """Counts a request that is not admitted.

        Raises RateLimitError and StoreUnavailableError.
        """
        ...

    async def login(self, credentials: Credentials) -> str:
        """A new cookie for the page, in exchange for the key; for none where there are no keys.

        Where no key is shown, or none is needed, it is the shown cookie if that is good: it lives
        as long as a new one. Raises InvalidKeyError and StoreUnavailableError.
        """
        ...

    async def logout(self, cookie: str) -> None:
        """Ends a cookie, if there is such a one. Raises StoreUnavailableError."""
        ...

    async def close(self) -> None: ...
