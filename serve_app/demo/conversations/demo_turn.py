"""One turn of a demo conversation, and whole conversations in MOSS's published JSON.

moss_tp.dialogue writes the markers, and plugins_svc the commands, results and capability lines,
exactly as when serving.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from moss_tp.dialogue import Segment, neutralise_output, render
from plugins_svc.protocol.calls import Call, render_commands
from plugins_svc.protocol.results import format_results
from plugins_svc.registry import capability_lines
from plugins_svc.sdk.output import PluginOutput

META_INSTRUCTION = "You are MOSS nano, a small demo model.\n"


@dataclass(frozen=True)
class DemoTurn:
    """The user's message and the thoughts, plugin calls and reply that the model should write."""

    user: str
    thoughts: str
    reply: str
    outcomes: tuple[tuple[Call, PluginOutput], ...] = ()

    def segments(self) -> dict[str, Segment]:
        """The turn's five segments, by their keys in the published JSON."""
        calls = [call for call, _ in self.outcomes]
        return {
            "Human": Segment("human", f" {self.user}"),
            "Inner Thoughts": Segment("thoughts", f" {self.thoughts}"),
            "Commands": Segment("commands", f" {render_commands(calls)}"),
            "Tool Responses": Segment("results", format_results(self.outcomes, neutralise_output)),
            "MOSS": Segment("moss", f" {self.reply}"),
        }


def published(number: int, turns: Sequence[DemoTurn], enabled: Collection[str]) -> dict[str, Any]:
    """The conversation in the JSON that MOSS's fine-tuning reads."""
    chat = {
        f"turn_{index}": {key: render([part]) for key, part in turn.segments().items()}
        for index, turn in enumerate(turns, 1)
    }
    return {
        "conversation_id": number,
        "meta_instruction": META_INSTRUCTION + capability_lines(enabled),
        "num_turns": len(turns),
        "chat": chat,
    }
