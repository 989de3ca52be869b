"""Where messages go: a listener, and one stream of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Address:
    """Of a listener. `token` proves that a sender was told the address by the listener."""

    host: str
    port: int
    token: bytes = field(repr=False)


@dataclass(frozen=True)
class Target:
    """One stream of a listener; it travels with the request that it will answer."""

    address: Address
    stream: int
