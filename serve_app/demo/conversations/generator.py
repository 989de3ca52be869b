"""Generates whole demo conversations in MOSS's published JSON: which turns, and in what order.

A conversation depends only on its seed and number. Training conversations never contain a held-out
value; those with `held_out` contain no others.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serve_app.demo.conversations.demo_turn import published
from serve_app.demo.conversations.draft import Draft
from serve_app.demo.conversations.draw import Draw

# Weights of the kinds of turns in a mixed conversation, and around its main turn in others.
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


def conversations(
    count: int, seed: int, held_out: bool = False, short_share: float = 0
) -> Iterator[dict[str, Any]]:
    """The first `count` conversations of a data set."""
    return (conversation(number, seed, held_out, short_share) for number in range(count))


def write_conversations(
    path: Path, count: int, seed: int, held_out: bool = False, short_share: float = 0
) -> None:
    """Writes `count` conversations, one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        for line in conversations(count, seed, held_out, short_share):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def conversation(
    number: int, seed: int, held_out: bool = False, short_share: float = 0
) -> dict[str, Any]:
    """Conversation `number` of a data set, in MOSS's published JSON.

    A share of `short_share` are short: a sum, an equation, a fact and a question about it,
    something to look up or to draw, or words to repeat. From these a model learns to copy first.
    """
    draft = Draft(Draw(f"{seed}/{number}", held_out))
    full = {_sum_last: 22, _recall_last: 38, _lookup_last: 20, _mixed: 20}
    short = {_sum_alone: 16, _equation_alone: 12, _recall_alone: 34, _lookup_alone: 22}
    short[_repeat_alone] = 16
    outline = draft.draw.weighted(short if draft.draw.chance(short_share) else full)
    outline(draft)
    return published(number, draft.turns, draft.enabled)


def _sum_alone(draft: Draft) -> None:
    draft.enabled = {"calculator", *draft.enabled}
    draft.add("calculator")


def _equation_alone(draft: Draft) -> None:
    if draft.draw.chance(0.7):
        draft.enabled = {"equation_solver", *draft.enabled}
    draft.add("equation_solver")


def _recall_alone(draft: Draft) -> None:
    draft.add("tell")
    draft.add_any({"ask": 1}, draft.draw.integer(1, 2))


def _lookup_alone(draft: Draft) -> None:
    kind = draft.draw.weighted({"web_search": 75, "text_to_image": 25})
    if draft.draw.chance(0.7):
        draft.enabled = {kind, *draft.enabled}
    draft.add(kind)


def _repeat_alone(draft: Draft) -> None:
    draft.add("repeat")


def _sum_last(draft: Draft) -> None:
    """A sum after up to three other turns."""
    draft.add_any(_FILLER, draft.draw.weighted({0: 60, 1: 22, 2: 12, 3: 6}))
    draft.add("calculator")


def _lookup_last(draft: Draft) -> None:
    """A search or a picture after up to two other turns."""
    draft.add_any(_FILLER, draft.draw.weighted({0: 40, 1: 45, 2: 15}))
    _lookup_alone(draft)


def _recall_last(draft: Draft) -> None:
    """The user tells a fact and asks for it some turns later, then perhaps for another one."""
    draft.add_any(_FILLER, draft.draw.weighted({0: 75, 1: 25}))
    draft.add("tell")
    draft.add_any(_FILLER, draft.draw.weighted({0: 15, 1: 45, 2: 25, 3: 12, 5: 3, 9: 1}))
    for _ in range(draft.draw.integer(1, 2)):
        draft.add("ask")


def _mixed(draft: Draft) -> None:
    draft.add_any(_ANY_TURN, draft.draw.weighted({1: 40, 2: 25, 3: 19, 4: 10, 7: 4, 12: 2}))
