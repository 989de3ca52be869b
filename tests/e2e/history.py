"""A history checker: what a chat client was told, against what the server says in the end.

A turn is acked when the client has read its answer. An acked turn stands for ever, unchanged and
in its place; one that was not acked is stored once or not at all; nobody sees another's turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

History = Sequence[Sequence[str]]  # pairs of prompt and response


@dataclass
class ChatRecord:
    """What one client has sent and read in one chat. Its prompts are unique among all clients."""

    sent: set[str] = field(default_factory=set)
    acked: list[tuple[str, str]] = field(default_factory=list)

    def ack(self, prompt: str, history: History) -> list[str]:
        """Records an answer with the `history` that it told; returns the faults in it."""
        found = self.faults(history)
        if not history or history[-1][0] != prompt:
            found.append(f"{prompt!r} was answered as something else")
        else:
            self.acked.append((prompt, history[-1][1]))
        return found

    def faults(self, history: History) -> list[str]:
        """What is wrong with `history`, a line for each turn that is lost, doubled, …"""
        prompts = [prompt for prompt, _ in history]
        responses = {turn[0]: turn[1] for turn in history}
        found = [f"foreign: {prompt!r}" for prompt in prompts if prompt not in self.sent]
        found += [f"doubled: {prompt!r}" for prompt in responses if prompts.count(prompt) > 1]
        for prompt, response in self.acked:
            if prompt not in responses:
                found.append(f"lost: {prompt!r}")
            elif responses[prompt] != response:
                found.append(f"changed: {prompt!r}")
        acked = [prompt for prompt, _ in self.acked]
        if [prompt for prompt in prompts if prompt in set(acked)] != acked and not found:
            found.append(f"reordered: {acked}")
        return found
