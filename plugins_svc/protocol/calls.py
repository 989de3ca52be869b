"""Plugin calls as MOSS writes them: reading its Commands, and rendering what is to run.

The grammar is `None` or `NAME("ARG")` joined by `, `; an argument holds no `"` and no newline and
there are no escapes. Models stray from it, so calls are extracted and everything else is ignored.
Only text that the model generated may be parsed here: never Results, never a user's words.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# Each call name and the plugin that answers it, in the order in which Results list them.
PLUGIN_OF_CALL = {
    "Search": "web_search",
    "Calculate": "calculator",
    "Solve": "equation_solver",
    "Text2Image": "text_to_image",
}
MAX_CALLS = 4
NO_CALLS = "None"

_CALL = re.compile(rf'\b({"|".join(PLUGIN_OF_CALL)})\("([^"\n]*)"\)')


@dataclass(frozen=True)
class Call:
    """One call, `name("argument")`. `name` is one of PLUGIN_OF_CALL."""

    name: str
    argument: str

    @property
    def plugin(self) -> str:
        """Name of the plugin that answers this call, e.g. `calculator`."""
        return PLUGIN_OF_CALL[self.name]

    def __str__(self) -> str:
        return f'{self.name}("{self.argument}")'


def parse_commands(text: str, enabled: Collection[str] | None = None) -> list[Call]:
    """The first MAX_CALLS calls in a Commands body whose plugin is in `enabled` (None: any)."""
    calls = [Call(match[1], match[2]) for match in _CALL.finditer(text)]
    return [call for call in calls if enabled is None or call.plugin in enabled][:MAX_CALLS]


def render_commands(calls: Sequence[Call]) -> str:
    """The canonical Commands body, `None` when nothing is to run."""
    return ", ".join(map(str, calls)) or NO_CALLS
