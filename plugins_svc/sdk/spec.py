"""What a plugin is: something named that answers one call's argument. Knows no back end."""

from typing import Protocol

from plugins_svc.sdk.output import PluginOutput


class Plugin(Protocol):
    """A back end for one kind of call.

    `run` never raises for what is in the argument: that is `PluginOutput.no_result()`.
    """

    @property
    def name(self) -> str:
        """The plugin's own name, e.g. `calculator`."""
        ...

    @property
    def call_name(self) -> str:
        """The name that Commands use, e.g. `Calculate`."""
        ...

    async def run(self, argument: str) -> PluginOutput:
        """Answer `call_name("argument")`."""
        ...

    def close(self) -> None:
        """Give back what the plugin holds: processes, files."""
        ...
