"""HTTP clients for a server at a known URL: which of them go through the environment's proxies.

A server on this machine needs no proxy, whatever HTTP_PROXY or ALL_PROXY say. For others the
variables count, NO_PROXY included. Replies have no read timeout: the server bounds a turn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from urllib.request import proxy_bypass

import httpx

from moss_tp.errors import MossError

_UNBOUNDED = httpx.Limits(max_connections=None)


class ProxyError(MossError):
    """The environment names a proxy that cannot be used; raised before a request is sent."""


def http_client(url: str, connect_timeout_s: float) -> httpx.Client:
    """A client for the server at `url`. Raises ProxyError."""
    transport = httpx.HTTPTransport() if is_direct(url) else None
    with _proxy_errors():
        return httpx.Client(
            timeout=httpx.Timeout(None, connect=connect_timeout_s), transport=transport
        )


def async_http_client(url: str, connect_timeout_s: float) -> httpx.AsyncClient:
    """The same for asyncio, with any number of connections."""
    transport = httpx.AsyncHTTPTransport(limits=_UNBOUNDED) if is_direct(url) else None
    with _proxy_errors():
        return httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=connect_timeout_s),
            limits=_UNBOUNDED,
            transport=transport,
        )


def is_direct(url: str) -> bool:
    """Whether no proxy is used: the host is this machine, or NO_PROXY names it."""
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL:
        return False  # the request will fail with a better message
    return _is_loopback(host) or bool(proxy_bypass(host))


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


@contextmanager
def _proxy_errors() -> Iterator[None]:
    """httpx reads the proxies when a client is made; it raises ImportError for SOCKS."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ProxyError(f"the environment names a proxy that cannot be used: {error}") from error
