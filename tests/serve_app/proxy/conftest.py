import pytest

from tests.serve_app.proxy.proxies import Proxy


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()
