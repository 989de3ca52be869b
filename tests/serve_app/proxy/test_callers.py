"""For whom a refusal holds."""

import pytest

from serve_app.proxy import shed
from serve_app.proxy.refusals import MAX_HOLD_S
from tests.serve_app.proxy.proxies import Proxy, refuse


async def test_one_caller_does_not_speak_for_another(proxy: Proxy) -> None:
    """Its session may be long."""
    await refuse(proxy, caller="ann")
    assert await proxy.ask(caller="bob") == 200
    await refuse(proxy, caller="bob")
    assert [await proxy.ask(caller=name) for name in ("ann", "bob", "eve")] == [0, 0, 0]
    proxy.clock.now += MAX_HOLD_S
    await refuse(proxy, caller="bob")
    assert await proxy.ask(caller="eve") == 200


@pytest.mark.parametrize("callers", [("ann", "bob"), ("bob", "ann")])
async def test_of_two_callers_the_harder_refusal_holds_for_all(
    proxy: Proxy, callers: tuple[str, str]
) -> None:
    asked = {"ann": b'{"max_tokens": 10 }', "bob": b'{"max_tokens": 100}'}
    for caller in callers:
        await refuse(proxy, asked[caller], caller=caller)
    assert await proxy.ask(asked["ann"], caller="eve") == 200
    assert await proxy.ask(asked["bob"], caller="eve") == 0
    assert await proxy.ask(asked["ann"], caller="ann") == 0


async def test_who_shows_nothing_is_known_by_its_address(proxy: Proxy) -> None:
    assert shed._caller({"headers": [], "client": ("10.0.0.1", 5)}) == "10.0.0.1"
    assert shed._caller({"headers": [(b"cookie", b"a=b")], "client": ("10.0.0.1", 5)}) == "a=b"
    assert shed._caller({"headers": []}) == ""
