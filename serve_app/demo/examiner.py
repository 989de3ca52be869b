"""Puts questions to a model the way the server does: same prompts, same two passes, same engine.

Only HTTP, the session store and Ray are left out; plugins run in this process.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.build import build_engine
from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import EngineDeadError
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer
from plugins_svc.protocol.calls import Call
from plugins_svc.registry import available_plugins, create_plugin
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.spec import Plugin
from serve_app.chat.generation import Answer, Generation
from serve_app.chat.two_pass import TwoPassGenerator
from serve_app.demo.exam import Question
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.meta_instruction import load_meta_instruction
from serve_app.sessions.session import Turn, new_token

_TURN_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Mark:
    """A question with every turn that was answered."""

    question: Question
    turns: tuple[Turn, ...]

    @property
    def is_right(self) -> bool:
        return self.question.is_answered_by(self.turns[-1])


class _LocalModel:
    """AsyncEngine as the turn code's ChatModel."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def generate(
        self, request_id: str, prompt_ids: Sequence[int], params: SamplingParams, session_id: str
    ) -> AsyncGenerator[TokenDelta]:
        async with aclosing(self._engine.generate(request_id, list(prompt_ids), params)) as deltas:
            async for delta in deltas:
                yield delta


class _LocalPlugins:
    """The plugins of this process, by name; what has no back end finds nothing."""

    def __init__(self, names: Collection[str]) -> None:
        with_back_end = frozenset(names).intersection(available_plugins({}))
        self._plugins: dict[str, Plugin] = {name: create_plugin(name, {}) for name in with_back_end}

    async def run(self, call: Call) -> PluginOutput:
        plugin = self._plugins.get(call.plugin)
        return PluginOutput.no_result() if plugin is None else await plugin.run(call.argument)

    def close(self) -> None:
        for plugin in self._plugins.values():
            plugin.close()


@dataclass(frozen=True)
class Examiner:
    """Asks with fixed sampling settings and plugins, `concurrency` chats at a time."""

    model: str
    params: SamplingParams
    enabled: frozenset[str] = frozenset({"calculator"})
    dtype: str = "float32"
    kv_cache_dtype: str | None = None
    concurrency: int = 16

    def ask(self, questions: Sequence[Question]) -> list[Mark]:
        """Every question with its answer, in order."""
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
        plugins = _LocalPlugins(self.enabled)
        try:
            prompts = PromptBuilder(tokenizer, load_meta_instruction(directory))
            limit = ModelConfig.from_dir(directory).max_position_embeddings
            generator = TwoPassGenerator(_LocalModel(engine), plugins, prompts)
            chat = _Chat(self, generator, prompts, limit)
            return await asyncio.gather(*map(chat.answer, questions))
        finally:
            plugins.close()
            engine.close()


class _Chat:
    """Chats with one model."""

    def __init__(
        self,
        examiner: Examiner,
        generator: TwoPassGenerator,
        prompts: PromptBuilder,
        max_length: int,
    ) -> None:
        self._examiner, self._prompts, self._max_length = examiner, prompts, max_length
        self._generator = generator
        self._places = asyncio.Semaphore(examiner.concurrency)

    async def answer(self, question: Question) -> Mark:
        """The whole chat of one question."""
        turns: list[Turn] = []
        async with self._places:
            for user in question.users:
                turns.append(await self._turn(turns, user))
        return Mark(question, tuple(turns))

    async def _turn(self, turns: Sequence[Turn], user: str) -> Turn:
        enabled = self._examiner.enabled
        generation = Generation(
            request_id=new_token(),
            session_id="",
            prompt=self._prompts.build(turns, user, enabled, self._max_length),
            max_length=self._max_length,
            params=self._examiner.params,
            enabled=enabled,
            deadline=time.monotonic() + _TURN_TIMEOUT_S,
        )
        answer = None
        async for event in self._generator.run(generation):
            if isinstance(event, Answer):
                answer = event
        if answer is None:
            raise EngineDeadError("a turn ended without an answer")
        return Turn(
            new_token(), user, answer.thoughts, answer.commands, answer.results, answer.reply
        )
