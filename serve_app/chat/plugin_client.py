"""Sends plugin calls to the plugins that answer them, in this process or behind handles."""

from collections.abc import Awaitable, Callable, Mapping

from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput

RunPlugin = Callable[[str], Awaitable[PluginOutput]]


class PluginsByName:
    """A PluginClient over one function per plugin name, which answers an argument."""

    def __init__(self, functions: Mapping[str, RunPlugin]) -> None:
        self._functions = functions

    async def run(self, call: Call) -> PluginOutput:
        """The plugin's answer. Raises UnknownPluginError if there is no such plugin."""
        if (function := self._functions.get(call.plugin)) is None:
            raise UnknownPluginError(f"plugin {call.plugin!r} is not deployed")
        return await function(call.argument)
