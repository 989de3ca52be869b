"""A model that says what a message asks for, as slowly as the test wants, and its plugins."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import EngineDeadError
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import Item, PluginOutput
from tests.support.chat_fakes import FakeModel, FakePlugins
from tests.support.fakes.pictures import PICTURE

# The first word of a message, and what the model calls for it.
_COMMANDS = {
    "sum": 'Calculate("12.5*48")',
    "find": 'Search("moss plants")',
    "draw": 'Text2Image("a cat")',
    "break": 'Calculate("1/0")',
}
_REPLIES = {
    "sum": "It is **600**.",
    "find": "Moss is a plant<sup><|1|></sup>, and this chat<sup><|2|></sup>.",
    "draw": "Here is your cat.",
    "break": "I could not find out.",
}
ITEMS = (
    Item("Moss, the plant", "https://moss.example/plant", "A small flowerless plant."),
    Item("A file of ours", "", "A chat model of Fudan University."),
)
OUTPUTS = {
    "12.5*48": PluginOutput(True, ("600",)),
    "moss plants": PluginOutput(True, items=ITEMS),
    "a cat": PICTURE,
    "1/0": PluginOutput.no_result(),
}


def words(count: int) -> str:
    """So many words, in paragraphs of twenty."""
    return "".join(f"word{n}" + (" " if n % 20 else "\n\n") for n in range(1, count + 1)).strip()


@dataclass
class Pace:
    """How fast the model writes, for all models of a server that share it."""

    pause_s: float = 0.0005
    _limit: int | None = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, is_reply: bool, num_tokens: int) -> None:
        while is_reply and self._limit is not None and num_tokens >= self._limit:
            self._moved.clear()
            await self._moved.wait()
        await asyncio.sleep(self.pause_s)

    def hold(self, after: int | None) -> None:
        """From now on replies stop for a while after so many characters; None: they go on."""
        self._limit = after
        self._moved.set()

    @asynccontextmanager
    async def held(self, after: int) -> AsyncIterator[None]:
        """Replies stop after so many characters until the end of the block."""
        self.hold(after)
        try:
            yield
        finally:
            self.hold(None)


@dataclass
class ScriptedModel:
    """`say TEXT` is answered with that text, `count N` with so many words, `dice` by its seed.

    Other first words call plugins. Any other message is told how many turns there are.
    """

    pace: Pace
    requests: list[EngineRequest] = field(default_factory=list)
    fails: bool = False

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncIterator[TokenDelta]:
        self.requests.append(request)
        if self.fails:
            raise EngineDeadError("the model is gone")
        reply = partial(_reply, seed=request.params.seed or 0)
        model = FakeModel(think=_think, reply=reply, wait=self.pace.wait)
        async with aclosing(model.generate(request, session_id)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                yield delta


def _asked(prompt: str) -> tuple[str, str]:
    """The first word of the last message, and the rest of it."""
    message = prompt.rpartition("<|Human|>:")[2].partition("<eoh>")[0].strip()
    first, _, rest = message.partition(" ")
    return first, rest


def _think(prompt: str) -> str:
    first, _ = _asked(prompt)
    commands = _COMMANDS.get(first)
    thoughts = f"The user says “{first}”." if commands else "None"
    return f" {thoughts}<eot>\n<|Commands|>: {commands or 'None'}<eoc>"


def _reply(prompt: str, seed: int) -> str:
    first, rest = _asked(prompt)
    text = _REPLIES.get(first, f"turn {prompt.count('<|Human|>:')}")
    if first == "say":
        text = rest
    elif first == "count":
        text = words(int(rest))
    elif first == "dice":
        text = f"The dice say {hashlib.sha256(str(seed).encode()).hexdigest()[:8]}."
    return f" {text}<eom>"


@dataclass
class ScriptedPlugins(FakePlugins):
    """Calls take `pause_s`; a search for another text finds that text, in every field."""

    pause_s: float = 0.01

    async def run(self, call: Call, timeout_s: float) -> PluginOutput:
        self.calls.append(call)
        await asyncio.sleep(self.pause_s)
        return OUTPUTS.get(call.argument, PluginOutput(True, (call.argument,)))
