"""Which pages may send requests here with a visitor's browser, and under which names.

A browser says which page a request is for, and no script can change that. A server without keys
also refuses names that are not its own: a page of another site may let its name point to this
machine (DNS rebinding), and then is no foreign page.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from serve_app.errors import ForeignOriginError
from serve_app.http.errors import to_response
from serve_app.http.request_id import HEADER

ANY = "*"
# Where Serve's proxies, which know no settings, read the allowed origins: with spaces between them.
CORS_ORIGINS = "MOSS_CORS_ORIGINS"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# What scripts of other sites may read, where such a site is allowed.
_SHOWN = (HEADER, "Retry-After", "X-Should-Retry")
_ALLOW_NO_METHOD = "pages of other sites may not send such requests"
# A proxy in front may read the other one of two.
_SINGLE = ("host", "origin", "sec-fetch-site")
_OWN_SITES = ("same-origin", "none")  # none: typed in, or a bookmark
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+")


@dataclass(frozen=True)
class OriginPolicy:
    """`cors_origins` are the foreign origins, `scheme://host[:port]`, that are allowed; or ANY.

    `hosts` are the names, besides those of loopback, by which this server may be called; those of
    all addresses (`0.0.0.0`, `::`) stand for any address. None: any name, for callers show a key.
    """

    cors_origins: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = frozenset()

    def check(self, headers: Headers) -> None:
        """Raises ForeignOriginError, also where such a header is there twice."""
        for name in _SINGLE:
            if len(headers.getlist(name)) > 1:
                raise ForeignOriginError(f"a request has one header {name} at most")
        host = headers.get("host")
        if host is not None and not self._is_own_name(host):
            raise ForeignOriginError(f"this server is not called {host[:100]!r}")
        origin = headers.get("origin")
        if origin is not None and self.allows(origin):
            return
        is_foreign = headers.get("sec-fetch-site", "none") not in _OWN_SITES
        if is_foreign or (origin is not None and not _is_same(origin, host)):
            raise ForeignOriginError("requests of pages of other sites are not allowed")

    def allows(self, origin: str) -> bool:
        """Whether pages of a foreign `origin` may use this server."""
        return ANY in self.cors_origins or origin in self.cors_origins

    def _is_own_name(self, host: str) -> bool:
        if self.hosts is None:
            return True
        name = (_split(host) or SplitResult("", "", "", "", "")).hostname
        if name in ("localhost", *self.hosts):
            return True
        address = _address(name or "")
        return address is not None and (address.is_loopback or self._has_any_address)

    @property
    def _has_any_address(self) -> bool:
        found = (_address(name) for name in self.hosts or ())
        return any(address is not None and address.is_unspecified for address in found)


def _is_same(origin: str, host: str | None) -> bool:
    """Whether `origin` is that of a page of `host`, whose scheme nobody tells."""
    scheme, _, place = origin.partition("://")
    page, own = _split(place), _split(host or "")
    if scheme not in _PORTS or page is None or own is None:
        return False
    ports = [_port(each, scheme) for each in (page, own)]
    return (page.hostname, ports[0]) == (own.hostname, ports[1])


def _port(split: SplitResult, scheme: str) -> int | None:
    try:
        return split.port or _PORTS[scheme]
    except ValueError:
        return None


def _split(host: str) -> SplitResult | None:
    """`name[:port]` in parts; None if it is no such thing."""
    if not _HOST.fullmatch(host):
        return None
    try:
        return urlsplit(f"//{host}")
    except ValueError:
        return None


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def origins_from_environment() -> frozenset[str]:
    """The foreign origins that a proxy of Serve allows."""
    return frozenset(os.environ.get(CORS_ORIGINS, "").split())


class Cors(CORSMiddleware):
    """Lets pages of foreign `origins` read answers. Starlette's, with its refusals in our form."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=tuple(origins),
            allow_methods=METHODS,
            allow_headers="*",
            expose_headers=_SHOWN,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        return to_response(ForeignOriginError(_ALLOW_NO_METHOD))
