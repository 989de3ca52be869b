"""Wires an engine for a model directory: used by the offline LLM and by the server alike."""

from moss_tp.config import ModelConfig
from moss_tp.engine.llm_engine import LLMEngine
from moss_tp.engine.running.executor import create_executor
from moss_tp.engine_config import EngineConfig
from moss_tp.tokenizer import Tokenizer


def build_engine(
    config: EngineConfig, executor: str = "local", tokenizer: Tokenizer | None = None
) -> LLMEngine:
    """Loads `config.model` on every rank of the named executor. `tokenizer`: the model's, where
    the caller has loaded it already.

    Raises ConfigError and CheckpointError before any rank is started where they can be seen
    from here.
    """
    model = ModelConfig.from_dir(config.model)
    model.check_tp(config.tp_size)
    tokenizer = tokenizer or Tokenizer.from_dir(config.model)
    resolved = config.resolve(model)
    started = create_executor(executor, resolved)
    try:
        return LLMEngine(resolved, started, tokenizer, model)
    except BaseException:
        started.close()
        raise
