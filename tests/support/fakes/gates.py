"""A gate with keys that are written down here."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve_app.access.gate import Admission, Credentials, Ticket
from serve_app.access.principal import Principal
from serve_app.errors import InvalidKeyError

ANN, BOB, ADMIN = "key-of-ann", "key-of-bob", "key-of-admin"
PRINCIPALS = {
    ANN: Principal("ann", "1"),
    BOB: Principal("bob", "2"),
    ADMIN: Principal("root", "3", is_admin=True),
}


@dataclass
class FakeGate:
    """Knows `principals` by their keys, and by cookies that are `cookie-of:KEY`.

    Keeps what was admitted; `refusal` is raised instead.
    """

    principals: Mapping[str, Principal] = field(default_factory=lambda: PRINCIPALS)
    refusal: Exception | None = None
    admissions: list[tuple[Principal, Admission]] = field(default_factory=list)
    num_running: int = 0
    num_charged: int = 0

    async def principal(self, credentials: Credentials) -> Principal:
        cookie = credentials.cookie or ""
        key = credentials.key or cookie.removeprefix("cookie-of:")
        if key not in self.principals:
            raise InvalidKeyError("a key is needed")
        return self.principals[key]

    @asynccontextmanager
    async def admit(self, principal: Principal, num_prompt_tokens: int) -> AsyncIterator[Admission]:
        if self.refusal is not None:
            raise self.refusal
        name = f"{principal.key_id}-{len(self.admissions)}"
        ticket = Ticket(name, principal.key_id, None, num_prompt_tokens)
        admission = Admission(num_prompt_tokens, ticket)
        self.admissions.append((principal, admission))
        self.num_running += 1
        try:
            yield admission
        finally:
            self.num_running -= 1

    @asynccontextmanager
    async def resume(self, ticket: Ticket) -> AsyncIterator[Admission]:
        (principal,) = (p for p in self.principals.values() if p.key_id == ticket.key_id)
        admission = Admission(ticket.num_tokens, ticket)
        self.admissions.append((principal, admission))
        self.num_running += 1
        try:
            yield admission
        finally:
            self.num_running -= 1

    async def charge(self, principal: Principal) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.num_charged += 1

    async def login(self, credentials: Credentials) -> str:
        await self.principal(credentials)
        return (
            credentials.cookie or "" if credentials.key is None else f"cookie-of:{credentials.key}"
        )

    async def logout(self, cookie: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None: ...
