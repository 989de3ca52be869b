"""The address is held for Serve's proxies alone, and a refusal says which port and why."""

import socket
from contextlib import ExitStack

import pytest

from moss_tp.errors import ConfigError
from serve_app.bench.load.server_process import free_port
from serve_app.cli.serve.address import held_address, url_of


def proxy(port: int) -> socket.socket:
    """Listens as Serve's proxy does."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.listen()
    return made


def leave_a_connection(listener: socket.socket) -> None:
    """One that lingers on the listener's side, which closes it first."""
    with socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        accepted.close()
        assert client.recv(1) == b""


def test_only_a_proxy_can_bind_beside_the_holder() -> None:
    port = free_port()
    with held_address("localhost", port) as address:
        assert address == "127.0.0.1"
        for option in (socket.SO_REUSEADDR, socket.SO_KEEPALIVE):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.setsockopt(socket.SOL_SOCKET, option, 1)
                other.bind(("127.0.0.1", port))
        with proxy(port) as first:
            first.close()  # it dies, and the next one takes its place
            with proxy(port) as second, socket.create_connection(("127.0.0.1", port)):
                second.accept()[0].close()


def test_a_second_server_is_refused_before_and_after_the_first_one_listens() -> None:
    port = free_port()
    refusal = f"port {port} of 127.0.0.1 is in use"
    with held_address("127.0.0.1", port):
        with pytest.raises(ConfigError, match=refusal), held_address("127.0.0.1", port):
            raise AssertionError("it must not be entered")
        with proxy(port), pytest.raises(ConfigError, match=refusal):
            ExitStack().enter_context(held_address("127.0.0.1", port))


@pytest.mark.parametrize("is_ours", [True, False])
def test_lingering_connections_of_an_earlier_server_do_not_matter(is_ours: bool) -> None:
    port = free_port()
    with proxy(port) if is_ours else socket.create_server(("127.0.0.1", port)) as earlier:
        leave_a_connection(earlier)
    with held_address("127.0.0.1", port), proxy(port):
        pass


def test_an_error_in_the_block_is_not_one_of_the_address() -> None:
    with pytest.raises(OSError, match="disk"), held_address("127.0.0.1", free_port()):
        raise OSError("disk")


def test_an_ipv6_address_is_held() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    port = free_port()
    try:
        with held_address("::1", port) as address:
            assert address == "::1"
    except ConfigError as error:
        assert "cannot listen on ::1" in str(error)  # a machine without IPv6


def test_an_unknown_host_is_named() -> None:
    with (
        pytest.raises(ConfigError, match=r"cannot listen on nowhere\.invalid port 80"),
        held_address("nowhere.invalid", 80),
    ):
        raise AssertionError("it must not be entered")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://localhost:8000"),
        ("0.0.0.0", "http://localhost:8000"),
        ("::", "http://localhost:8000"),
        ("::1", "http://[::1]:8000"),
        ("192.0.2.7", "http://192.0.2.7:8000"),
    ],
)
def test_the_url_that_is_shown_reaches_the_server(host: str, url: str) -> None:
    assert url_of(host, 8000) == url
