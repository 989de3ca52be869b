"""A turn runner over fakes and a real store, and what a client of it would say."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from moss_tp.sampling_params import SamplingParams
from serve_app.chat.generation import ReplyDelta
from serve_app.chat.one_pass import OnePassGenerator
from serve_app.chat.protocols import Prompts, ReplyGenerator
from serve_app.chat.turn import TurnDone, TurnLimits, TurnRequest, TurnRunner
from serve_app.chat.two_pass import TwoPassGenerator
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.plain import PlainPromptBuilder
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.session import Session
from serve_app.settings import Dialogue
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins

KEY = "a key that nobody else would choose"


@dataclass
class Chat:
    """A runner with its fakes."""

    store: RedisSessionStore
    model: FakeModel
    plugins: FakePlugins
    limits: TurnLimits = field(default_factory=lambda: TurnLimits(max_model_len=4096))
    dialogue: Dialogue = "plugin"
    codec: CharCodec = field(default_factory=CharCodec)

    def ask(self, user: str = "你好", **changes: object) -> AsyncGenerator[ReplyDelta | TurnDone]:
        request = TurnRequest(
            "ann", user, user, SamplingParams(), frozenset({"calculator"}), max_length=2048
        )
        runner = TurnRunner(self.store, *self._speakers(), self.limits)
        return runner.run(replace(request, **changes))  # type: ignore[arg-type]

    def _speakers(self) -> tuple[Prompts, ReplyGenerator]:
        if self.dialogue == "plain":
            plain = PlainPromptBuilder(self.codec, "Be brief.\n")
            return plain, OnePassGenerator(self.model, plain.eom_id)
        prompts = PromptBuilder(self.codec, "Be brief.\n")
        return prompts, TwoPassGenerator(self.model, self.plugins, prompts, plugin_timeout_s=0.3)

    async def say(self, user: str = "你好", **changes: object) -> Session:
        async with aclosing(self.ask(user, **changes)) as events:
            *deltas, done = [event async for event in events]
        assert isinstance(done, TurnDone)
        pieces = [delta.text for delta in deltas if isinstance(delta, ReplyDelta)]
        assert len(pieces) == len(deltas) and "" not in pieces
        assert "".join(pieces) in (done.turn.reply, ""), "a replay has no pieces"
        return done.session
