"""Exchanges as a conversation in MOSS's published JSON, which fine-tuning reads.

Fine-tuning builds the ids from it that serving built: untrusted text is neutralised likewise.
"""

from collections.abc import Collection, Sequence
from typing import Any

from moss_tp.dialogue import NO_COMMAND, NO_RESULTS, Segment, neutralise, render
from plugins_svc.registry import PLUGIN_NAMES, capability_lines
from serve_app.prompt.exchange import Exchange


def published_conversation(
    number: int,
    meta_instruction: str,
    exchanges: Sequence[Exchange],
    enabled: Collection[str],
) -> dict[str, Any]:
    """The JSON of one conversation; `number` tells it apart in messages.

    Exchanges with thoughts are those of a model with plugins, of which `enabled` could run.
    """
    if any(exchange.thoughts for exchange in exchanges):
        meta_instruction += capability_lines(set(enabled) & set(PLUGIN_NAMES))
    return {
        "conversation_id": number,
        "meta_instruction": meta_instruction,
        "num_turns": len(exchanges),
        "chat": {
            f"turn_{index}": {name: render([part]) for name, part in _segments(exchange).items()}
            for index, exchange in enumerate(exchanges, 1)
        },
    }


def _segments(exchange: Exchange) -> dict[str, Segment]:
    """By their keys in the published JSON. Results were neutralised when they were formatted."""
    user = {"Human": Segment("human", f" {neutralise(exchange.user)}")}
    reply = {"MOSS": Segment("moss", f" {neutralise(exchange.reply)}")}
    if not exchange.thoughts:
        return user | reply
    return {
        **user,
        "Inner Thoughts": Segment("thoughts", f" {neutralise(exchange.thoughts)}"),
        "Commands": Segment("commands", f" {neutralise(exchange.commands or NO_COMMAND)}"),
        "Tool Responses": Segment("results", exchange.results or NO_RESULTS),
        **reply,
    }
