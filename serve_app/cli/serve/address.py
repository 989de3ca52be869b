"""The address that a server will listen on, held for it from the first moment to the last.

The holder binds and does not listen. Serve's proxies set SO_REUSEPORT, so they can bind beside it;
nobody else can, neither while the server starts nor while a dead proxy is replaced.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from moss_tp.errors import ConfigError


@contextmanager
def held_address(host: str, port: int) -> Iterator[str]:
    """The IP address of `host`, whose `port` is held for the block.

    Raises ConfigError, which names the port and says why, when nothing could listen there.
    """
    try:
        family, address = _resolve(host, port)
        holder = _bind(family, (address, port))
    except OSError as error:
        raise _refusal(host, port, error) from error
    with holder:
        yield address


def url_of(host: str, port: int) -> str:
    """What reaches a server on `host` from this machine."""
    name = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    """IPv4 where there is both, as `localhost` is for most clients."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])


def _bind(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    """A socket bound to `address`. Raises OSError if anybody listens on it or holds it."""
    # SO_REUSEADDR passes connections of an earlier server that linger, but no listener and no
    # holder. A holder must not set it: two that do would not exclude each other.
    _bound(family, address, socket.SO_REUSEADDR).close()
    try:
        return _bound(family, address, socket.SO_REUSEPORT)
    except OSError:  # lingering connections of a server that was not Serve
        return _bound(family, address, socket.SO_REUSEADDR)


def _bound(family: socket.AddressFamily, address: tuple[str, int], option: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _refusal(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} of {host} is in use: stop what listens there, or choose another with "
            "--port"
        )
    return ConfigError(f"cannot listen on {host} port {port}: {error.strerror}")
