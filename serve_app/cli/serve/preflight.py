"""What can be known to fail is told before anything is started. It leaves nothing behind."""

import asyncio
import errno
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.tokenizer import Tokenizer
from serve_app.prompt.choose import Dialogue, build_prompts
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.settings import ServeSettings

EMBEDDED = "embedded"
NOT_DURABLE = "warning: the store keeps no append-only file, so its crash may lose turns"


def check_settings(settings: ServeSettings) -> Sequence[str]:
    """What the user ought to know; raises ConfigError or CheckpointError, saying what to change."""
    directory = resolve_model(settings.model)
    model = ModelConfig.from_dir(directory)
    model.check_tp(settings.tp)
    settings.engine_config(str(directory)).resolve(model)
    _check_tokenizer(directory, settings.spoken_dialogue, model.vocab_size)
    _ = settings.plugin_names
    if settings.device == "cuda":
        _check_gpus(settings.tp * settings.replicas)
    if settings.store == EMBEDDED or asyncio.run(_check_store(settings.store)):
        return ()
    return (NOT_DURABLE,)


def check_address(host: str, port: int) -> None:
    """Raises ConfigError when nobody could listen there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As the server will: connections of the last one that still linger are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use: stop what listens there, or choose "
                "another with --port"
            ) from error
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error


def make_directory(directory: Path) -> None:
    """A directory of our own to write in. Raises ConfigError when it cannot be one."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write in {directory}: {error.strerror}") from error


def _check_gpus(needed: int) -> None:
    import torch  # seconds to import, and only CUDA needs it here

    found = torch.cuda.device_count()
    if found < needed:
        raise ConfigError(f"{needed} GPUs are needed, one a rank, and this machine has {found}")


def _check_tokenizer(directory: Path, dialogue: Dialogue, vocab_size: int) -> None:
    tokenizer = Tokenizer.from_dir(directory)
    build_prompts(tokenizer, directory, dialogue)
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(
            f"the tokenizer in {directory} has {tokenizer.vocab_size} tokens, the model only "
            f"{vocab_size}: they are not of one model"
        )


async def _check_store(url: str) -> bool:
    """Whether it is durable; an error when it is of no use."""
    store = RedisSessionStore(url, StoreSettings(max_retries=1))
    try:
        await store.check()
        return await store.is_durable()
    finally:
        await store.close()
