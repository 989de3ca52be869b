"""Sends plugin calls to the plugins that answer them, in this process or behind handles.

It bounds every call, and asks a plugin that has stopped answering only now and then.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.circuit_breaker import CircuitBreaker, PluginUnreachableError

# Answers an argument. Raises PluginUnreachableError if the plugin cannot be asked.
RunPlugin = Callable[[str], Awaitable[PluginOutput]]

# A client in a hurry must not make a plugin look dead to the others: this share of a spec's time is
# longer than every plugin's own limit (a search waits for 2 s, an equation takes up to 3 s).
MIN_PATIENCE = 0.8

logger = logging.getLogger(__name__)


class PluginsByName:
    """A PluginClient over one function per plugin name. `clock` returns seconds."""

    def __init__(
        self, functions: Mapping[str, RunPlugin], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._functions = functions
        self._breakers = {name: CircuitBreaker(clock, _logging(name)) for name in functions}

    async def run(self, call: Call, timeout_s: float) -> PluginOutput:
        """See `PluginClient.run`.

        Raises UnknownPluginError if there is no such plugin, PluginPausedError if it has stopped
        answering.
        """
        if (function := self._functions.get(call.plugin)) is None:
            raise UnknownPluginError(f"plugin {call.plugin!r} is not deployed")
        with self._breakers[call.plugin].call():
            try:
                async with asyncio.timeout(timeout_s) as limit:
                    return await function(call.argument)
            except TimeoutError:
                if limit.expired() and timeout_s >= MIN_PATIENCE * call.spec.timeout_s:
                    raise PluginUnreachableError(f"no answer for {timeout_s:.1f} s") from None
                raise


def _logging(name: str) -> Callable[[bool], None]:
    def log(is_open: bool) -> None:
        if is_open:
            logger.warning("plugin %s has stopped answering: calls get no result for now", name)
        else:
            logger.warning("plugin %s answers again", name)

    return log
