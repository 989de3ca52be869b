"""Checks settings before anything is started. It leaves nothing behind."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.device import num_gpus
from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.tokenizer import Tokenizer
from moss_tp.weights.checkpoint import check_headers
from moss_tp.weights.sharded import resolve_weights
from serve_app.cli.stored.location import EMBEDDED
from serve_app.moderation.hook import load_moderation
from serve_app.prompt.choose import Dialogue, build_prompts
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.settings import ServeSettings


def check_settings(settings: ServeSettings) -> Sequence[str]:
    """Warnings for the user. Raises ConfigError or CheckpointError that say what to change."""
    directory = resolve_model(settings.model, with_weights=settings.reads_weights)
    model = ModelConfig.from_dir(directory)
    model.check_tp(settings.tp)
    config = settings.engine_config(str(directory)).resolve(model)
    _check_tokenizer(directory, settings.resolved_dialogue, model.vocab_size)
    if settings.reads_weights:
        check_headers(directory, model)
        resolve_weights(config)
    _ = settings.plugin_names
    load_moderation(settings.moderation)
    if settings.device == "cuda":
        _check_gpus(settings.tp * settings.replicas.most)
    if settings.store == EMBEDDED:
        return ()
    return asyncio.run(_check_store(settings.store, settings.allow_volatile_store))


def _check_gpus(needed: int) -> None:
    if (found := num_gpus()) < needed:
        raise ConfigError(f"{needed} GPUs are needed, one per rank, and this machine has {found}")


def _check_tokenizer(directory: Path, dialogue: Dialogue, vocab_size: int) -> None:
    tokenizer = Tokenizer.from_dir(directory)
    build_prompts(tokenizer, directory, dialogue)
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(
            f"the tokenizer in {directory} has {tokenizer.vocab_size} tokens, the model only "
            f"{vocab_size}: they do not belong together"
        )


async def _check_store(url: str, may_be_volatile: bool) -> Sequence[str]:
    """Warnings. Raises when the store is unusable."""
    store = RedisSessionStore(url, StoreSettings(patience_s=2))
    try:
        faults = await store.check(may_be_volatile=may_be_volatile)
    finally:
        await store.close()
    return [f"warning: {fault}" for fault in faults]
