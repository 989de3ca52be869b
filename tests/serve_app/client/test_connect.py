"""Which servers are reached through the proxies of the environment."""

import pytest

from serve_app.client.chat_client import ChatClient
from serve_app.client.connect import ProxyError, async_http_client, http_client, is_direct

VARIABLES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
LOOPBACK = (
    *("http://localhost:1", "http://LOCALHOST.", "https://moss.localhost", "http://127.0.0.1:1"),
    *("http://127.9.8.7", "http://[::1]:1", "http://[::ffff:127.0.0.1]", "http://0.0.0.0:1"),
)
ELSEWHERE = (
    *("http://moss.example", "http://localhost.example", "http://10.0.0.1", "http://[fe80::1]"),
    *("http://128.0.0.1", "nonsense", "http://[::1"),
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("url", LOOPBACK)
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9", "nonsense://x"])
def test_loopback_needs_no_proxy(url: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    assert is_direct(url)
    with http_client(url, 5) as client:
        assert not client._mounts
    assert not async_http_client(url, 5)._mounts


@pytest.mark.parametrize("url", ELSEWHERE)
def test_elsewhere_the_environments_proxy_is_used(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert not is_direct(url)
    with http_client(url, 5) as client:
        assert client._mounts


@pytest.mark.parametrize("proxy", ["socks5://user:secret@h:9", "ftp://user:secret@h:9"])
def test_a_proxy_that_cannot_be_used_is_one_line(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    for make in (http_client, async_http_client, lambda url, _: ChatClient(url)):
        with pytest.raises(ProxyError, match="names a proxy that cannot be used") as caught:
            make("http://moss.example", 5)
        assert "secret" not in str(caught.value)


def test_no_proxy_counts_even_where_the_proxy_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "moss.example")
    http_client("http://moss.example:19324", 5).close()
