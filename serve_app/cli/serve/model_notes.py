"""What `moss serve` says about the model once it is loaded: its weights, memory and limits."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from moss_tp.config import FC_OUT, OUT_PROJ, ModelConfig, block_name, resolve_model
from moss_tp.engine_config import EngineConfig
from moss_tp.hardware.roofline import ITEM_BYTES
from moss_tp.quant_config import LM_HEAD, QuantFormat
from moss_tp.weights.checkpoint import check_headers
from moss_tp.weights.sharded import resolve_weights
from serve_app.settings import ServeSettings

GIB = 1 << 30
CALL_S = 10


def model_notes(settings: ServeSettings, app_name: str) -> Iterator[str]:
    """Lines for the user; of a replica that does not answer, fewer."""
    directory = resolve_model(settings.model, with_weights=settings.reads_weights)
    model = ModelConfig.from_dir(directory)
    if settings.reads_weights:
        model = check_headers(directory, model)
    config = resolve_weights(settings.engine_config(str(directory)).resolve(model))
    yield weights_note(model, config)
    with suppress(Exception):  # it is being replaced: the server says so itself
        stats = _stats(app_name)
        yield limits_note(stats, config)
        yield start_note(stats["start_s"])
    if settings.replicas.most > 1:
        yield f"each of {settings.replicas} replicas takes as much memory"


def weights_note(model: ModelConfig, config: EngineConfig) -> str:
    """How the weights are stored, and a rank's share of them as its kernels hold them."""
    item, model = ITEM_BYTES[config.dtype], model.with_rounded_head(config.lm_head_bits)
    unpacked = _unpacked(model, config)
    total = model.vocab_size * model.hidden_size * item  # the embedding
    for layer, (outputs, inputs) in model.linear_layers.items():
        dense = outputs * inputs * item
        total += dense if layer in unpacked else model.matrix_bytes(layer, item)
    count = f", {len(unpacked)} layers unpacked to {config.dtype}" if unpacked else ""
    share = f"{total / config.tp_size / GIB:.1f} GiB a rank"
    return f"weights in {_formats(model, config.dtype)}{count}: {share}"


def limits_note(stats: Mapping[str, Any], config: EngineConfig) -> str:
    """What the ranks of one replica hold and how much they take on at once."""
    pids = stats["rank_pids"]
    ranks = "the rank takes" if len(pids) == 1 else f"the {len(pids)} ranks take"
    tokens = stats["num_blocks"] * config.block_size
    return (
        f"{ranks} {memory_bytes(pids) / GIB:.1f} GiB of this machine's memory; the KV cache holds "
        f"{tokens:,} tokens, a chat up to {config.context_length:,}; "
        f"{config.max_num_seqs} replies run at once"
    )


def start_note(phases: Mapping[str, float]) -> str:
    """How long a replica took to start, once it had its place."""
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    return f"a replica started in {sum(phases.values()):.1f} s: {parts}"


def memory_bytes(pids: Iterable[int]) -> int:
    """Of these processes together: what several share counts once (Linux's PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _unpacked(model: ModelConfig, config: EngineConfig) -> frozenset[str]:
    """Quantized layers that the kernels multiply by as dense ones."""
    quantized = frozenset(filter(model.format_of, model.linear_layers))
    if config.device == "cuda" and config.dtype == "float32":
        return quantized
    # Both are one product, which needs both in as many bits.
    pairs = [
        (f"{block_name(number)}.{OUT_PROJ}", f"{block_name(number)}.{FC_OUT}")
        for number in range(model.num_layers)
    ]
    apart = [pair for pair in pairs if _bits(model, pair[0]) != _bits(model, pair[1])]
    return quantized.intersection(chain.from_iterable(apart))


def _bits(model: ModelConfig, layer: str) -> int | None:
    form = model.format_of(layer)
    return None if form is None else form.bits


def _formats(model: ModelConfig, dtype: str) -> str:
    """Of blocks and head: a bits' name, with groups where there are any, or the dtype."""
    blocks = [model.format_of(layer) for layer in model.linear_layers if layer != LM_HEAD]
    names = dict.fromkeys(_name(form, dtype) for form in blocks)
    text, head = " and ".join(names), _name(model.format_of(LM_HEAD), dtype)
    return text if [head] == list(names) else f"{text}, lm_head in {head}"


def _name(form: QuantFormat | None, dtype: str) -> str:
    if form is None:
        return dtype
    groups = "one group" if form.group_size == -1 else f"groups of {form.group_size}"
    return f"int{form.bits} ({groups})"


def _stats(app_name: str) -> Mapping[str, Any]:
    from ray import serve

    handle = serve.get_deployment_handle("MossServer", app_name)
    stats: Mapping[str, Any] = handle.stats.remote().result(timeout_s=CALL_S)
    return stats
