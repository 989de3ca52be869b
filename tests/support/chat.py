"""A TurnRunner over fakes and a real store, and what a client of it would do."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Delta
from serve_app.chat.reply import Replier, create_replier
from serve_app.chat.turn import TurnDone, TurnEvent, TurnLimits, TurnRequest, TurnRunner
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.choose import Dialogue
from serve_app.prompt.plain import PlainPromptBuilder
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.session import Session
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins

PARAMS = SamplingParams(max_tokens=2**31)


@dataclass
class Chat:
    """A TurnRunner with its fakes."""

    store: RedisSessionStore
    model: FakeModel
    plugins: FakePlugins
    limits: TurnLimits = field(default_factory=lambda: TurnLimits(max_model_len=4096))
    dialogue: Dialogue = "plugin"
    codec: CharCodec = field(default_factory=CharCodec)
    _runners: dict[object, TurnRunner] = field(default_factory=dict, init=False)

    def request(self, user: str = "你好", **changes: object) -> TurnRequest:
        enabled = frozenset({"calculator"})
        request = TurnRequest("ann", user, user, PARAMS, enabled, 2048, shows_history=True)
        return replace(request, **changes)  # type: ignore[arg-type]

    def ask(self, user: str = "你好", **changes: object) -> AsyncGenerator[TurnEvent]:
        return self.runner.run(self.request(user, **changes))

    @property
    def runner(self) -> TurnRunner:
        """One for all turns, as in a server, until a fake is exchanged."""
        parts = (self.store, self.model, self.plugins, self.limits, self.codec)
        key = (*map(id, parts), self.dialogue)
        if key not in self._runners:
            self._runners[key] = TurnRunner(self.store, self.replier, self.limits)
        return self._runners[key]

    @property
    def replier(self) -> Replier:
        kind = PlainPromptBuilder if self.dialogue == "plain" else PromptBuilder
        prompts = kind(self.codec, "Be brief.\n")
        return create_replier(self.model, self.plugins, prompts)

    async def events(self, user: str = "你好", **changes: object) -> list[TurnEvent]:
        async with aclosing(self.ask(user, **changes)) as events:
            return [event async for event in events]

    async def say(self, user: str = "你好", **changes: object) -> Session:
        *events, done = await self.events(user, **changes)
        assert isinstance(done, TurnDone)
        text = "".join(event.text for event in events if isinstance(event, Delta))
        assert text in (done.turn.reply, ""), "a replay has no deltas"
        return done.session
