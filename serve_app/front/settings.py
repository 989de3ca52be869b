"""What the front listens on, what is behind it, and its limits."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from moss_tp.errors import ConfigError


@dataclass(frozen=True)
class Address:
    """`host` is an IP address, `*` for all of them, or localhost."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`host:port`, an IPv6 address in brackets. Raises ConfigError."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (colon and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise ConfigError(f"{text!r} is not host:port")
        if host not in ("*", "localhost"):
            try:
                ip_address(host)
            except ValueError as error:
                raise ConfigError(f"{host!r} is no IP address, nor * or localhost") from error
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        if self.host in ("*", "localhost"):
            return self.host == "localhost"
        return ip_address(self.host).is_loopback

    def __str__(self) -> str:
        host = "127.0.0.1" if self.host == "localhost" else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True)
class Limits:
    """Bytes, counts and seconds. A body of `body_bytes` and its headers fit into one buffer."""

    body_bytes: int = 256 * 1024
    header_bytes: int = 32 * 1024
    num_headers: int = 100
    url_length: int = 8192
    connections: int = 2000
    # Until the headers are there, from the first byte on, and then until the body is: together less
    # than ten seconds, for who is slow in both.
    header_s: int = 4
    body_s: int = 5
    # A stream has a ping every 15 s; a whole reply may take the server's five minutes.
    reply_s: int = 330
    # For a TLS handshake, and for a client that does not read; who waits for an answer has time.
    idle_s: int = 8
    keep_alive_s: int = 10  # between two requests; a drain waits for it
    drain_s: int = 300


@dataclass(frozen=True)
class FrontSettings:
    """`certificate` is a PEM file with a chain and its key; without one the front speaks plain
    HTTP. `back_ends` are servers of this machine.

    Raises ConfigError for a back end that is not on loopback, or plain HTTP for the world.
    """

    listen: Address
    back_ends: tuple[Address, ...]
    certificate: Path | None = None
    is_plain: bool = False  # on purpose: something before it speaks TLS
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.back_ends:
            raise ConfigError("there is no back end")
        for back_end in self.back_ends:
            if not back_end.is_loopback:
                raise ConfigError(
                    f"the back end {back_end} is not on loopback: what goes to it is not encrypted"
                )
        if self.certificate is None and not (self.listen.is_loopback or self.is_plain):
            raise ConfigError(
                f"{self.listen} is not loopback, and without a certificate everything is readable: "
                "give --cert, or --plain where something before the front speaks TLS"
            )
        name = str(self.certificate or "")
        if any(char in name for char in " \t\r\n\"'\\#$"):
            raise ConfigError(
                f"the path {name!r} has a character that HAProxy would read otherwise"
            )
