"""Builds an engine. Library, server, benchmarks and demo evaluation all start here."""

from collections.abc import Callable
from typing import Protocol

from moss_tp.config import ModelConfig
from moss_tp.engine.detokenizer import ByteDecoder
from moss_tp.engine.llm_engine import LLMEngine, ModelIds
from moss_tp.engine.running.executor import MakeExecutor, find_executor
from moss_tp.engine.running.warm_up import warm_up
from moss_tp.engine_config import EngineConfig
from moss_tp.tokenizer import Tokenizer
from moss_tp.weights.sharded import resolve_weights


class ReplyTokenizer(ByteDecoder, Protocol):
    """The part of a tokenizer that an engine needs."""

    @property
    def eos_ids(self) -> tuple[int, ...]: ...


def build_engine(
    config: EngineConfig,
    executor: str | MakeExecutor = "local",
    on_death: Callable[[str], None] | None = None,
    tokenizer: ReplyTokenizer | None = None,
    *,
    is_warm: bool = False,
) -> LLMEngine:
    """Loads `config.model`, a local directory, on every rank.

    `executor` is a registered name or makes the executor from the resolved config. `on_death` is
    called with a reason, from any thread, as soon as a rank is lost, even while a step hangs.
    Pass `tokenizer` if it is already loaded. With `is_warm` it has run a few steps, see `warm_up`.

    Raises ConfigError and CheckpointError, before any rank is started where possible. If it
    raises, all ranks have ended.
    """
    make_executor = find_executor(executor) if isinstance(executor, str) else executor
    model = ModelConfig.from_dir(config.model)
    model.check_tp(config.tp_size)
    resolved = resolve_weights(config.resolve(model))
    tokenizer = tokenizer or Tokenizer.from_dir(config.model)
    started = make_executor(resolved)
    try:
        if on_death is not None:
            started.watch(on_death)
        ids = ModelIds(model.vocab_size, tokenizer.eos_ids)
        engine = LLMEngine(resolved, started, tokenizer, ids)
        if is_warm:
            warm_up(started, resolved)
        return engine
    except BaseException:
        started.close()
        raise
