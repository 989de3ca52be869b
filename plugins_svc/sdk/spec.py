"""What a plugin declares: one PluginSpec, from which all others derive what they need to know.

The registry, the grammar of Commands, the capability lines, the Results format and the command
line read specs; none of them names a plugin. A spec describes its own plugin only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from plugins_svc.sdk.arguments import ArgumentCheck
from plugins_svc.sdk.errors import UnknownPluginError
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.result_format import ResultFormat

# Values of `Setting`s by name, for all plugins together.
PluginSettings: TypeAlias = Mapping[str, str | Path]

TIMEOUT_S = 5.0  # of a call, unless its spec says another one


class Plugin(Protocol):
    """A running back end for one kind of call."""

    async def ready(self) -> str:
        """Waits until it answers from everything that it has; a line on that, maybe empty.

        `run` may be called before. The line is for the operator.
        """
        ...

    async def run(self, argument: str) -> PluginOutput:
        """The answer to one call; may run several at a time.

        Never raises for what is in the argument: that is `PluginOutput.no_result()`.
        """
        ...

    async def check(self) -> None:
        """Start to repair what has broken. Raises if the plugin can answer nothing any more.

        Called every second or so, even while calls run. It returns at once.
        """
        ...

    def close(self) -> None:
        """Release processes, threads and files. May be called again; `run` may not."""
        ...


@dataclass(frozen=True)
class Setting:
    """A value that the operator must give before the plugin can run.

    `option` and `metavar` are how the command line spells it (`--documents DIR`), and `reason` is
    the start of the hint that asks for it (`it searches documents`).
    """

    name: str
    option: str
    metavar: str
    help: str
    reason: str
    is_directory: bool = False


@dataclass(frozen=True)
class PluginSpec:
    """One plugin. `create` is None for a plugin that has no back end yet.

    `name` (`calculator`) is used in configuration and in the API, `call_name` (`Calculate`) in
    Commands, `label` and `parameter` in the capability line. A call with effects must not be sent
    twice; one without may be repeated. A call gets `timeout_s` seconds, or less where the chat has
    no more time; what takes longer has no result.
    """

    name: str
    call_name: str
    label: str
    parameter: str
    check_argument: ArgumentCheck
    create: Callable[[PluginSettings], Plugin] | None
    result_format: ResultFormat = field(default_factory=ResultFormat)
    settings: tuple[Setting, ...] = ()
    has_effects: bool = False
    timeout_s: float = TIMEOUT_S

    @property
    def capability_line(self) -> str:
        """The line of the meta instruction that offers this plugin to the model."""
        return f"- {self.label}: enabled. API: {self.call_name}({self.parameter})"

    def why_unavailable(self, settings: PluginSettings) -> str | None:
        """A message: why the plugin cannot run with `settings`; None when it can."""
        if self.create is None:
            return f"no back end for plugin {self.name!r}"
        for setting in self.settings:
            if setting.name not in settings:
                hint = f"{setting.reason}, so give {setting.option} {setting.metavar}"
                return f"no back end for plugin {self.name!r}: {hint}"
        return None

    def start(self, settings: PluginSettings) -> Plugin:
        """A new instance that checks arguments; UnknownPluginError when it cannot run."""
        if self.create is None or self.why_unavailable(settings):
            raise UnknownPluginError(self.why_unavailable(settings))
        return CheckedPlugin(self.create(settings), self.check_argument)


class CheckedPlugin:
    """A plugin behind its spec's argument check: a refused argument never reaches it."""

    def __init__(self, plugin: Plugin, check: ArgumentCheck) -> None:
        self._plugin = plugin
        self._check = check

    async def ready(self) -> str:
        """See `Plugin.ready`."""
        return await self._plugin.ready()

    async def run(self, argument: str) -> PluginOutput:
        """See `Plugin.run`."""
        checked = self._check(argument)
        return PluginOutput.no_result() if checked is None else await self._plugin.run(checked)

    async def check(self) -> None:
        """See `Plugin.check`."""
        await self._plugin.check()

    def close(self) -> None:
        """See `Plugin.close`."""
        self._plugin.close()
