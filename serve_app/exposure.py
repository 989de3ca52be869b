"""Whether a server may listen on a host: nobody but this machine reaches one without keys."""

import re
import socket
from ipaddress import ip_address

from moss_tp.errors import ConfigError
from serve_app.settings import ServeSettings

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+")


def check_exposure(settings: ServeSettings, host: str) -> None:
    """Raises ConfigError if other machines could use a server on `host` without a key, and nothing
    says that this is meant."""
    check_origins(settings)
    if settings.no_auth and settings.auth == "required":
        raise ConfigError("--auth required and --no-auth say the opposite: choose one")
    if not (settings.requires_key or settings.no_auth or is_loopback(host)):
        raise ConfigError(
            f"other machines reach {host}, and no caller needs a key: add --auth required (moss"
            " keys add makes a key), or --no-auth to serve everyone"
        )


def check_origins(settings: ServeSettings) -> None:
    """Raises ConfigError for a CORS origin that no browser would send."""
    for origin in settings.cors_origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"--cors-origin is scheme://host[:port] or *, not {origin!r}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`, a name or an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:  # nothing can listen there, and whoever tries will say why
        return True
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
