"""Whole demo conversations: which turns they have, in what order, with which plugins on.

A conversation follows from its seed alone. Those made for training never show a held-out value;
those made with `held_out` show no other.
"""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from plugins_svc.registry import PLUGIN_NAMES
from serve_app.demo.conversations.arithmetic import calculator_turn
from serve_app.demo.conversations.demo_turn import DemoTurn, published
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
_ANY_TURN: dict[str, float] = {
    "topic": 22,
    "ability": 4,
    "tell": 12,
    "ask": 12,
    "calculator": 14,
    "equation_solver": 10,
    "web_search": 13,
    "text_to_image": 7,
    "repeat": 6,
}
_FILLER: dict[str, float] = {
    "topic": 30,
    "tell": 22,
    "calculator": 24,
    "ask": 8,
    "ability": 3,
    "equation_solver": 5,
    "web_search": 5,
    "text_to_image": 3,
    "repeat": 6,
}


class Chat:
    """One conversation while it is being made."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.enabled: Collection[str] = _enabled(draw)
        self.language: Language = draw.choice(("zh", "en"))
        self.facts = Facts()
        self.turns: list[DemoTurn] = []

    def add(self, kind: str) -> None:
        """Append a turn of the given kind (a key of _ANY_TURN)."""
        draw, language = self.draw, self._turn_language()
        if kind == "topic":
            turn = topic_turn(draw, language)
        elif kind == "ability":
            turn = ability_turn(draw, language, self.enabled)
        elif kind == "tell":
            turn = tell_turn(draw, language, self.facts)
        elif kind == "ask":
            turn = ask_turn(draw, language, self.facts)
        elif kind == "repeat":
            turn = repeat_turn(draw, language)
        else:
            turn = _PLUGIN_TURNS[kind](draw, language, kind in self.enabled)
        self.turns.append(turn)

    def add_any(self, weights: dict[str, float], count: int) -> None:
        """Append `count` turns of kinds drawn by weight."""
        for _ in range(count):
            self.add(self.draw.weighted(weights))

    def _turn_language(self) -> Language:
        if self.draw.chance(0.04):
            return "en" if self.language == "zh" else "zh"
        return self.language


def conversation(
    number: int, seed: int, held_out: bool = False, short_share: float = 0
) -> dict[str, Any]:
    """Conversation `number` of a data set, in MOSS's published JSON.

    A `short_share` of them is no more than a sum, an equation, a fact and the question for it,
    something to look up or to draw, or words to be repeated: a first lesson in copying.
    """
    draw = Draw(f"{seed}/{number}", held_out)
    chat = Chat(draw)
    full = {_sum_last: 22, _recall_last: 38, _lookup_last: 20, _mixed: 20}
    short = {_sum_alone: 16, _equation_alone: 12, _recall_alone: 34, _lookup_alone: 22}
    short[_repeat_alone] = 16
    shape = draw.weighted(short if draw.chance(short_share) else full)
    shape(chat)
    return published(number, chat.turns, chat.enabled)


def write_conversations(
    path: Path, count: int, seed: int, held_out: bool = False, short_share: float = 0
) -> None:
    """`count` conversations, one JSON a line."""
    with path.open("w", encoding="utf-8") as file:
        for line in conversations(count, seed, held_out, short_share):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def conversations(
    count: int, seed: int, held_out: bool = False, short_share: float = 0
) -> Iterator[dict[str, Any]]:
    """The first `count` conversations of a data set."""
    return (conversation(number, seed, held_out, short_share) for number in range(count))


def _sum_alone(chat: Chat) -> None:
    chat.enabled = {"calculator", *chat.enabled}
    chat.add("calculator")


def _equation_alone(chat: Chat) -> None:
    if chat.draw.chance(0.7):
        chat.enabled = {"equation_solver", *chat.enabled}
    chat.add("equation_solver")


def _recall_alone(chat: Chat) -> None:
    chat.add("tell")
    chat.add_any({"ask": 1}, chat.draw.integer(1, 2))


def _lookup_alone(chat: Chat) -> None:
    kind = chat.draw.weighted({"web_search": 75, "text_to_image": 25})
    if chat.draw.chance(0.7):
        chat.enabled = {kind, *chat.enabled}
    chat.add(kind)


def _repeat_alone(chat: Chat) -> None:
    chat.add("repeat")


def _sum_last(chat: Chat) -> None:
    """A sum, after up to three other turns."""
    chat.add_any(_FILLER, chat.draw.weighted({0: 60, 1: 22, 2: 12, 3: 6}))
    chat.add("calculator")


def _lookup_last(chat: Chat) -> None:
    """A search or a picture, after one or two other turns."""
    chat.add_any(_FILLER, chat.draw.weighted({0: 40, 1: 45, 2: 15}))
    _lookup_alone(chat)


def _recall_last(chat: Chat) -> None:
    """A fact is told and asked for some turns later, then perhaps another one."""
    chat.add_any(_FILLER, chat.draw.weighted({0: 75, 1: 25}))
    chat.add("tell")
    chat.add_any(_FILLER, chat.draw.weighted({0: 15, 1: 45, 2: 25, 3: 12, 5: 3, 9: 1}))
    for _ in range(chat.draw.integer(1, 2)):
        chat.add("ask")


def _mixed(chat: Chat) -> None:
    chat.add_any(_ANY_TURN, chat.draw.weighted({1: 40, 2: 25, 3: 19, 4: 10, 7: 4, 12: 2}))


def _enabled(draw: Draw) -> Collection[str]:
    """Plugins that are on: often just what the embedded server has."""
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
