"""Plugin calls as MOSS writes them: parsing its Commands, and rendering what is to run.

The grammar is `None` or `NAME("ARG")` joined by `, `; an argument holds no `"` and no newline, and
there are no escapes. Models deviate from it, so calls are extracted and the rest is ignored. Parse
only text that the model generated here: never Results, never a user's text.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from plugins_svc.registry import SPEC_OF_CALL
from plugins_svc.sdk.spec import PluginSpec

MAX_CALLS = 4
NO_CALLS = "None"

_CALL = re.compile(rf'\b({"|".join(map(re.escape, SPEC_OF_CALL))})\("([^"\n]*)"\)')


@dataclass(frozen=True)
class Call:
    """One call, `name("argument")`. `name` is the call name of a registered plugin."""

    name: str
    argument: str

    @property
    def spec(self) -> PluginSpec:
        """The spec of the plugin that answers this call; KeyError for an unknown call name."""
        return SPEC_OF_CALL[self.name]

    @property
    def plugin(self) -> str:
        """Name of the plugin that answers this call, e.g. `calculator`."""
        return self.spec.name

    def __str__(self) -> str:
        return f'{self.name}("{self.argument}")'


def parse_commands(text: str, enabled: Collection[str] | None = None) -> list[Call]:
    """The first MAX_CALLS calls in a Commands body whose plugin is in `enabled` (None: any)."""
    calls = [Call(match[1], match[2]) for match in _CALL.finditer(text)]
    return [call for call in calls if enabled is None or call.plugin in enabled][:MAX_CALLS]


def render_commands(calls: Sequence[Call]) -> str:
    """The canonical Commands body, `None` when nothing is to run."""
    return ", ".join(map(str, calls)) or NO_CALLS
