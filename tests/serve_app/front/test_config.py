"""What a front may be asked for, and what it says by itself."""

import json
from pathlib import Path

import pytest

from moss_tp.errors import ConfigError
from serve_app.front import errors
from serve_app.front.config import render
from serve_app.front.run import check_config, find_haproxy
from serve_app.front.settings import Address, FrontSettings, Limits
from serve_app.http.errors import TABLE
from serve_app.http.exchange import MAX_BODY_BYTES
from tests.serve_app.front.certificate import write_certificate

LOCAL = Address("127.0.0.1", 8080)
BEHIND = (Address("127.0.0.1", 19324),)
WORLD = Address("*", 443)


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback", "shown"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, True, "127.0.0.1:80"),
        ("localhost:80", "localhost", 80, True, "127.0.0.1:80"),
        ("[::1]:443", "::1", 443, True, "[::1]:443"),
        ("*:443", "*", 443, False, "*:443"),
        ("0.0.0.0:443", "0.0.0.0", 443, False, "0.0.0.0:443"),
        ("[::]:443", "::", 443, False, "[::]:443"),
        ("10.0.0.5:1", "10.0.0.5", 1, False, "10.0.0.5:1"),
    ],
)
def test_an_address(text: str, host: str, port: int, is_loopback: bool, shown: str) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert (address.is_loopback, str(address)) == (is_loopback, shown)


@pytest.mark.parametrize(
    "text", ["", "80", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "a b:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError):
        Address.parse(text)


def test_what_goes_unencrypted_stays_on_the_machine(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not on loopback"):
        FrontSettings(LOCAL, (Address("10.0.0.5", 19324),))
    with pytest.raises(ConfigError, match="without a certificate"):
        FrontSettings(WORLD, BEHIND)
    with pytest.raises(ConfigError, match="no back end"):
        FrontSettings(LOCAL, ())
    with pytest.raises(ConfigError, match="would read otherwise"):
        FrontSettings(WORLD, BEHIND, tmp_path / "a b.pem")
    FrontSettings(WORLD, BEHIND, is_plain=True)
    FrontSettings(WORLD, BEHIND, tmp_path / "a.pem")
    FrontSettings(LOCAL, BEHIND)


def test_haproxy_takes_what_we_write(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    file = tmp_path / "haproxy.cfg"
    for settings in (
        FrontSettings(LOCAL, BEHIND),
        FrontSettings(WORLD, (*BEHIND, Address("::1", 19325)), certificate),
        FrontSettings(WORLD, BEHIND, is_plain=True, limits=Limits(body_bytes=2**20)),
    ):
        file.write_text(render(settings))
        check_config(find_haproxy(), file)
    file.write_text(render(settings) + "nonsense\n")
    with pytest.raises(ConfigError, match="nonsense"):
        check_config(find_haproxy(), file)


def test_its_answers_are_in_the_servers_words() -> None:
    """A type and code of each status that the server has, too."""
    known = {(entry.status, entry.type, entry.code) for entry in TABLE.values()}
    for error in (*errors.OF_HAPROXY, errors.LONG_URL, errors.LARGE_HEADERS):
        assert set(json.loads(error.body)["error"]) == {"message", "type", "param", "code"}
        assert "'" not in error.body, "it is quoted by them"
    ours = (errors.TIMEOUT, errors.TOO_LARGE, errors.LARGE_HEADERS, errors.FAILED, errors.AWAY)
    assert {(error.status, error.type, error.code) for error in ours} <= known


def test_it_lets_pass_what_the_server_takes() -> None:
    assert Limits().body_bytes == MAX_BODY_BYTES
