"""Fake plugins: each writes a line for every call that it really received, then answers slowly."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.circuit_breaker import PluginPausedError

NAMES = ("calculator", "text_to_image")
WITH_EFFECTS = "text_to_image"
PLUGIN_S = 0.15


def answer_of(argument: str) -> PluginOutput:
    return PluginOutput(True, (f"{int(argument, 16) % 9973}",))


def note(log: Path, name: str, argument: str) -> None:
    """One write, so that several processes may append to the file."""
    with log.open("ab", buffering=0) as file:
        file.write(f"{name} {argument}\n".encode())
        os.fsync(file.fileno())


def received(log: Path, name: str = WITH_EFFECTS) -> list[str]:
    """The arguments of the calls that the plugin received, in order."""
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return [argument for who, _, argument in (line.partition(" ") for line in lines) if who == name]


async def run_logged(log: Path, name: str, argument: str) -> PluginOutput:
    note(log, name, argument)
    await asyncio.sleep(PLUGIN_S)
    return answer_of(argument)


@dataclass(frozen=True)
class LoggedPlugins:
    """A PluginClient in this process."""

    log: Path

    async def run(self, call: Call, timeout_s: float) -> PluginOutput:
        async with asyncio.timeout(timeout_s):
            return await run_logged(self.log, call.plugin, call.argument)


@dataclass(frozen=True)
class RecordedPlugins:
    """A PluginClient that answers as the stored calls of a turn say; by name and argument."""

    states: Mapping[tuple[str, str], str]

    async def run(self, call: Call, timeout_s: float) -> PluginOutput:
        if self.states.get((call.name, call.argument)) != "done":
            raise PluginPausedError("it gave no result")
        return answer_of(call.argument)


Answer = Callable[[str], PluginOutput]
