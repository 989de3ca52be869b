"""The answer of `GET /v1/plugins`: what a caller may let the model use, in the form of OpenAI's
lists."""

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel

from plugins_svc.registry import SPECS


class PluginInfo(BaseModel):
    """A plugin. `id` is its name in requests, `call_name` the one in Commands.

    `description` is the line by which the model knows it, `parameter` its one argument. A call that
    `has_effects` is sent at most once.
    """

    id: str
    object: Literal["plugin"] = "plugin"
    call_name: str
    label: str
    description: str
    parameter: str
    has_effects: bool


class PluginList(BaseModel):
    """All plugins that a caller may use, in MOSS's order."""

    object: Literal["list"] = "list"
    data: list[PluginInfo]


def plugin_list(names: Collection[str]) -> PluginList:
    """One entry for each of `names`."""
    return PluginList(
        data=[
            PluginInfo(
                id=spec.name,
                call_name=spec.call_name,
                label=spec.label,
                description=spec.capability_line,
                parameter=spec.parameter,
                has_effects=spec.has_effects,
            )
            for spec in SPECS
            if spec.name in names
        ]
    )
