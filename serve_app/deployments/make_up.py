"""What a replica's replies are made by, beside the request: stored with each turn.

Two replicas of the same make-up give the same bytes. A replay says what differs.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moss_tp.config import ModelConfig, resolve_model
from moss_tp.engine_config import EngineConfig
from moss_tp.weights.digest import weights_digest
from moss_tp.weights.sharded import resolve_weights
from serve_app.settings import ServeSettings

_PACKAGES = ("moss_tp", "cluster", "plugins_svc", "serve_app")


def replica_make_up(settings: ServeSettings) -> dict[str, Any]:
    """By name: digests of weights and code, and every setting that changes a reply's bits."""
    directory = resolve_model(settings.model, with_weights=settings.reads_weights)
    config = resolve_weights(settings.engine_config(str(directory)))
    return {
        "weights": weights_digest(directory, has_weights=settings.reads_weights),
        "code": code_digest(),
        "torch": version("torch"),
        "device": config.device,
        "processor": _processor(config.device),
        "dtype": config.dtype,
        "kv_cache_dtype": config.cache_dtype,
        "lm_head_bits": config.lm_head_bits,
        "tp": _tp(ModelConfig.from_dir(directory), config),
    }


def make_up_digest(make_up: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(make_up, sort_keys=True).encode()).hexdigest()


def code_digest() -> str:
    """Of all our sources, as they are installed."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _tp(model: ModelConfig, config: EngineConfig) -> int:
    """1 stands for every number of ranks that gives the bits of one. Dummy weights differ by it."""
    gives_other_bits = model.num_leaves % config.tp_size or config.load_format == "dummy"
    return config.tp_size if gives_other_bits else 1


def _processor(device: str) -> str:
    """The card, or the instruction set that the CPU's kernels are compiled for."""
    if device == "cuda":
        from moss_tp.hardware.gpu import first_card_name

        return first_card_name()
    from moss_tp.native.instruction_set import instruction_set, vector_kind

    return f"{instruction_set()} {vector_kind()}"  # AMX is Linux's to allow
