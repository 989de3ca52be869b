"""Asks a model questions the way the server does: the same Replier on the same engine.

Only HTTP, the session store and Ray are left out; plugins run in this process.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.build import build_engine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer
from plugins_svc.registry import available_plugins, create_plugin
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.calling.plugin_client import PluginsByName
from serve_app.chat.events import Done
from serve_app.chat.reply import Replier, create_replier
from serve_app.chat.request import ReplyRequest
from serve_app.demo.exam import Question
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.meta_instruction import load_meta_instruction
from serve_app.sessions.session import new_token

_TURN_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Mark:
    """A question, and the exchanges of the chat that answered it."""

    question: Question
    exchanges: tuple[Exchange, ...]

    @property
    def is_right(self) -> bool:
        return self.question.is_answered_by(self.exchanges[-1])


@dataclass(frozen=True)
class Examiner:
    """Asks with fixed sampling parameters and plugins, in `concurrency` chats at a time."""

    model: str
    params: SamplingParams
    enabled: frozenset[str] = frozenset({"calculator"})
    dtype: str = "float32"
    kv_cache_dtype: str | None = None
    concurrency: int = 16

    def ask(self, questions: Sequence[Question]) -> list[Mark]:
        """The answers to all questions, in order."""
        return asyncio.run(self._ask_all(questions))

    async def _ask_all(self, questions: Sequence[Question]) -> list[Mark]:
        directory = resolve_model(self.model)
        tokenizer = Tokenizer.from_dir(directory)
        config = EngineConfig(
            model=str(directory),
            dtype=self.dtype,
            kv_cache_dtype=self.kv_cache_dtype,
            max_num_seqs=64,
        )
        engine = AsyncEngine(build_engine(config, tokenizer=tokenizer))
        try:
            with _local_plugins(self.enabled) as plugins:
                prompts = PromptBuilder(tokenizer, load_meta_instruction(directory))
                replier = create_replier(_LocalModel(engine), plugins, prompts)
                max_length = ModelConfig.from_dir(directory).max_position_embeddings
                chats = _Chats(self, replier, max_length)
                return await asyncio.gather(*map(chats.answer, questions))
        finally:
            engine.close()


class _LocalModel:
    """An AsyncEngine as a ChatModel."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    def generate(self, request: EngineRequest, session_id: str) -> AsyncIterator[TokenDelta]:
        return self._engine.generate(request)


@contextmanager
def _local_plugins(names: Collection[str]) -> Iterator[PluginsByName]:
    """Plugins in this process; those without a back end have no result."""
    plugins = {name: create_plugin(name, {}) for name in available_plugins({}) if name in names}
    try:
        functions = {name: plugin.run for name, plugin in plugins.items()}
        yield PluginsByName(dict.fromkeys(names, _no_back_end) | functions)
    finally:
        for plugin in plugins.values():
            plugin.close()


async def _no_back_end(argument: str) -> PluginOutput:
    return PluginOutput.no_result()


class _Chats:
    """Chats with one model, `examiner.concurrency` at a time."""

    def __init__(self, examiner: Examiner, replier: Replier, max_length: int) -> None:
        self._examiner = examiner
        self._replier = replier
        self._max_length = max_length
        self._places = asyncio.Semaphore(examiner.concurrency)

    async def answer(self, question: Question) -> Mark:
        """The whole chat of one question."""
        exchanges: list[Exchange] = []
        async with self._places:
            for user in question.users:
                exchanges.append(await self._exchange(exchanges, user))
        return Mark(question, tuple(exchanges))

    async def _exchange(self, history: Sequence[Exchange], user: str) -> Exchange:
        request = ReplyRequest(
            request_id=new_token(),
            history=tuple(history),
            user=user,
            params=replace(self._examiner.params, max_tokens=self._max_length),
            enabled=self._examiner.enabled,
            max_length=self._max_length,
            deadline=time.monotonic() + _TURN_TIMEOUT_S,
        )
        *_, done = [event async for event in self._replier.reply(request)]
        assert isinstance(done, Done)
        return done.exchange
