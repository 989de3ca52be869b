"""A demo conversation while it is being generated: its plugins, language, facts and turns."""

from collections.abc import Callable, Collection, Mapping

from plugins_svc.registry import PLUGIN_NAMES
from serve_app.demo.conversations.arithmetic import calculator_turn
from serve_app.demo.conversations.demo_turn import DemoTurn
from serve_app.demo.conversations.draw import Draw
from serve_app.demo.conversations.equations import equation_turn
from serve_app.demo.conversations.lookups import picture_turn, search_turn
from serve_app.demo.conversations.memory import Facts, ask_turn, tell_turn
from serve_app.demo.conversations.phrasebook import Language
from serve_app.demo.conversations.repeats import repeat_turn
from serve_app.demo.conversations.smalltalk import ability_turn, topic_turn

_PLUGIN_TURNS: dict[str, Callable[[Draw, Language, bool], DemoTurn]] = {
    "calculator": calculator_turn,
    "equation_solver": equation_turn,
    "web_search": search_turn,
    "text_to_image": picture_turn,
}


class Draft:
    """A conversation to which turns are added. Everything is drawn from `draw`."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.enabled: Collection[str] = _enabled(draw)
        self.language: Language = draw.choice(("zh", "en"))
        self.facts = Facts()
        self.turns: list[DemoTurn] = []

    def add(self, kind: str) -> None:
        """Appends a turn: `topic`, `ability`, `tell`, `ask`, `repeat` or the name of a plugin."""
        language = self._turn_language()
        self.turns.append(self._turn(kind, language))

    def add_any(self, weights: Mapping[str, float], count: int) -> None:
        """Appends `count` turns of kinds drawn by weight."""
        for _ in range(count):
            self.add(self.draw.weighted(weights))

    def _turn(self, kind: str, language: Language) -> DemoTurn:
        if kind == "topic":
            return topic_turn(self.draw, language)
        if kind == "ability":
            return ability_turn(self.draw, language, self.enabled)
        if kind == "tell":
            return tell_turn(self.draw, language, self.facts)
        if kind == "ask":
            return ask_turn(self.draw, language, self.facts)
        if kind == "repeat":
            return repeat_turn(self.draw, language)
        return _PLUGIN_TURNS[kind](self.draw, language, kind in self.enabled)

    def _turn_language(self) -> Language:
        """The conversation's language, now and then the other one."""
        if self.draw.chance(0.04):
            return "en" if self.language == "zh" else "zh"
        return self.language


def _enabled(draw: Draw) -> Collection[str]:
    """Plugins that are on: often those of a server with default settings."""
    style = draw.integer(0, 9)
    if style < 2:
        return ("calculator",)
    if style < 4:
        return ("calculator", "equation_solver")
    if style < 6:
        return ("web_search", "calculator", "equation_solver")
    if style < 7:
        return PLUGIN_NAMES
    return tuple(name for name in PLUGIN_NAMES if draw.chance(0.5))
