"""Ray's router, most of which is private, is as ours needs it; and another one is refused."""

import pytest
from ray.serve._private.router import AsyncioRouter
from ray.serve.request_router import RequestRouter

from cluster.routing import contract
from cluster.routing.config import router_config
from cluster.routing.contract import check_contract
from cluster.routing.router import MossRouter
from moss_tp.errors import ConfigError


def test_the_installed_ray_keeps_it() -> None:
    check_contract()


@pytest.mark.parametrize("name", [name for names in contract._NEEDED.values() for name in names])
def test_a_ray_without_a_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = next(owner for owner, names in contract._NEEDED.items() if name in names)
    monkeypatch.delattr(owner, name)
    with pytest.raises(ConfigError, match=rf"ray .* has no {owner.__name__}\.{name} as the router"):
        router_config()


def test_a_ray_with_other_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def choose(self: object, pending_request: object) -> None: ...

    monkeypatch.setattr(RequestRouter, "_choose_replica_for_request", choose)
    with pytest.raises(ConfigError, match=r"RequestRouter\._choose_replica_for_request"):
        router_config()


def test_a_ray_that_asks_a_router_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def route(self: object) -> None: ...

    monkeypatch.setattr(AsyncioRouter, "_route_and_send_request_once", route)
    with pytest.raises(ConfigError, match=r"AsyncioRouter\._route_and_send_request_once"):
        router_config()


def test_serve_gets_the_router_by_reference() -> None:
    """A copy would have globals of its own, which nobody else reads."""
    assert router_config().get_request_router_class() is MossRouter
