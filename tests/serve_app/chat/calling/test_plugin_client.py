"""Plugins by name: a bounded call, and one that has stopped answering is soon not waited for."""

import asyncio
import logging

import pytest

from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.circuit_breaker import (
    FAILURES,
    PluginPausedError,
    PluginUnreachableError,
)
from serve_app.chat.calling.plugin_client import MIN_PATIENCE, PluginsByName

CALL = Call("Calculate", "1")
PATIENCE_S = MIN_PATIENCE * CALL.spec.timeout_s
ANSWER = PluginOutput(True, ("1",))


class Plugin:
    """Hangs while `hangs` is set; raises `error` otherwise, if there is one."""

    def __init__(self) -> None:
        self.hangs = False
        self.error: Exception | None = None
        self.num_calls = 0
        self.now = 0.0
        self.client = PluginsByName({"calculator": self.run}, lambda: self.now)

    async def run(self, argument: str) -> PluginOutput:
        self.num_calls += 1
        if self.hangs:
            await asyncio.sleep(600)
        if self.error is not None:
            raise self.error
        return ANSWER


async def test_a_stopped_plugin_is_soon_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    plugin = Plugin()
    plugin.hangs = True
    calls = [plugin.client.run(CALL, PATIENCE_S) for _ in range(FAILURES)]
    with caplog.at_level(logging.WARNING):
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [PluginUnreachableError] * FAILURES
        for _ in range(5):
            with pytest.raises(PluginPausedError):
                await plugin.client.run(CALL, 600)
        assert plugin.num_calls == FAILURES
        plugin.hangs, plugin.now = False, 60
        assert await plugin.client.run(CALL, 1) == ANSWER
        assert await plugin.client.run(CALL, 1) == ANSWER
    stopped, again = (record.getMessage() for record in caplog.records)  # only changes are told
    assert "calculator has stopped answering" in stopped
    assert again == "plugin calculator answers again"


async def test_a_client_in_a_hurry_makes_no_plugin_look_dead() -> None:
    plugin = Plugin()
    plugin.hangs = True
    for _ in range(2 * FAILURES):
        with pytest.raises(TimeoutError):
            await plugin.client.run(CALL, 0.01)
    assert plugin.num_calls == 2 * FAILURES


async def test_a_plugin_that_may_take_long_is_not_dead_before() -> None:
    """What would be long for another one is a client in a hurry for it."""
    plugin, paint = Plugin(), Call("Text2Image", "a fox")
    assert paint.spec.timeout_s > 10 * PATIENCE_S / MIN_PATIENCE
    client = PluginsByName({"text_to_image": plugin.run}, lambda: plugin.now)
    plugin.hangs = True
    calls = [client.run(paint, PATIENCE_S) for _ in range(2 * FAILURES)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [TimeoutError] * 2 * FAILURES


@pytest.mark.parametrize("error", [ValueError("odd argument"), TimeoutError("of its own")])
async def test_a_plugin_that_answers_with_an_error_is_asked_again(error: Exception) -> None:
    plugin = Plugin()
    plugin.error = error
    for _ in range(2 * FAILURES):
        with pytest.raises(type(error)):
            await plugin.client.run(CALL, 5)
    assert plugin.num_calls == 2 * FAILURES


async def test_a_plugin_without_a_replica_is_paused_alone() -> None:
    plugin, other = Plugin(), Plugin()
    plugin.error = PluginUnreachableError("no replica")
    client = PluginsByName({"calculator": plugin.run, "web_search": other.run})
    for _ in range(FAILURES):
        with pytest.raises(PluginUnreachableError):
            await client.run(CALL, 5)
    with pytest.raises(PluginPausedError):
        await client.run(CALL, 5)
    assert await client.run(Call("Search", "x"), 5) == ANSWER
