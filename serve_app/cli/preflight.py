"""What can be known to fail is told before anything is started. It leaves nothing behind."""

import asyncio
import errno
import socket

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.errors import ConfigError
from moss_tp.tokenizer import Tokenizer
from serve_app.redis_session_store import RedisSessionStore, StoreSettings
from serve_app.settings import ServeSettings

EMBEDDED = "embedded"


def check_settings(settings: ServeSettings) -> None:
    """Raises ConfigError or CheckpointError, saying what to change."""
    directory = resolve_model(settings.model)
    model = ModelConfig.from_dir(directory)
    model.check_tp(settings.tp)
    settings.engine_config(str(directory)).resolve(model)
    Tokenizer.from_dir(directory)
    _ = settings.plugin_names
    if settings.device == "cuda":
        _check_gpus(settings.tp * settings.replicas)
    if settings.store != EMBEDDED:
        asyncio.run(_check_store(settings.store))


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


def _check_gpus(needed: int) -> None:
    import torch  # seconds to import, and only CUDA needs it here

    found = torch.cuda.device_count()
    if found < needed:
        raise ConfigError(f"{needed} GPUs are needed, one a rank, and this machine has {found}")


async def _check_store(url: str) -> None:
    store = RedisSessionStore(url, StoreSettings(max_retries=1))
    try:
        await store.check()
    finally:
        await store.close()
