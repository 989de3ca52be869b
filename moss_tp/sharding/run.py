"""Writes a sharded directory: rank by rank, each block by block, then the manifest, then the name.

It may be killed at any moment: whole ranks are kept in DST.partial, and not made again.
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from moss_tp.config import ModelConfig
from moss_tp.finetune.durable import rename, sync
from moss_tp.model import MossForCausalLM
from moss_tp.native.instruction_set import vector_kind
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.quant_fields import FILE as QUANTIZER
from moss_tp.quantize.output import Output
from moss_tp.quantize.report import Progress
from moss_tp.sharding.settings import ShardSettings
from moss_tp.tokenizer_files import TOKENIZER_FILES
from moss_tp.weights.checkpoint import Checkpoint
from moss_tp.weights.digest import weights_digest
from moss_tp.weights.ranks.manifest import MANIFEST, FileEntry, Manifest, rank_name, sha256
from moss_tp.weights.ranks.rank_file import RankWriter

_COPIED = ("config.json", "generation_config.json", QUANTIZER, *TOKENIZER_FILES)
_PARTS_BESIDE_BLOCKS = 3  # last norm, LM head, embedding


def shard_model(settings: ShardSettings, *, is_shown: bool = True) -> None:
    """Makes `settings.destination`; with a progress bar if it `is_shown`.

    Raises ConfigError and CheckpointError, before anything is packed where possible.
    """
    config = ModelConfig.from_dir(settings.source)
    config.check_tp(settings.tp_size)
    with Checkpoint.open(settings.source) as checkpoint:
        config = checkpoint.check(config)
        digest = weights_digest(settings.source)
        shard_checkpoint(settings, config, checkpoint, digest, is_shown=is_shown)


@torch.inference_mode()
def shard_checkpoint(
    settings: ShardSettings,
    config: ModelConfig,
    checkpoint: Checkpoint,
    digest: str,
    *,
    is_shown: bool = True,
) -> None:
    """`shard_model` of the tensors of `checkpoint`, whose `digest` says which they are, and of what
    else is in the source's directory. Raises ConfigError and CheckpointError."""
    output, begun = Output(settings.destination), _made_of(settings, digest)
    with output.taken(begun):
        settings.check_space(config, output.partial, output.num_bytes)
        _write_ranks(settings, config, checkpoint, output, is_shown)
        _copy_files(settings, output)
        output.write_json(MANIFEST, _manifest(settings, config, output, begun).fields)
        output.finish()


def _made_of(settings: ShardSettings, digest: str) -> dict[str, Any]:
    return {
        "made_by": "moss shard",
        "source_digest": digest,
        "tp_size": settings.tp_size,
        "dtype": settings.dtype,
        "vectors": vector_kind(),
        "lm_head_bits": settings.lm_head_bits,
    }


def _write_ranks(
    settings: ShardSettings,
    config: ModelConfig,
    checkpoint: Checkpoint,
    output: Output,
    is_shown: bool,
) -> None:
    names = [rank_name(rank, settings.tp_size) for rank in range(settings.tp_size)]
    parts = config.num_layers + _PARTS_BESIDE_BLOCKS
    done = parts * sum((output.model / f"{name}.json").exists() for name in names)
    progress = Progress(parts * len(names), done, is_shown=is_shown, title="shard")
    try:
        for rank, name in enumerate(names):
            if not (output.model / f"{name}.json").exists():
                group = TPGroup(rank, settings.tp_size, torch.device("cpu"))
                model = MossForCausalLM(config, group, getattr(torch, settings.dtype))
                _write_rank(model, checkpoint, settings.lm_head_bits, output, name, progress)
    finally:
        progress.close()


def _write_rank(
    model: MossForCausalLM,
    checkpoint: Checkpoint,
    lm_head_bits: int | None,
    output: Output,
    name: str,
    progress: Progress,
) -> None:
    """The index comes last: it says that the tensors are whole."""
    new, file = output.model / f"{name}.bin.new", output.model / f"{name}.bin"
    with RankWriter(new) as writer:
        for part_name, part in model.packed_parts(checkpoint, lm_head_bits):
            writer.add(part_name, part)
            progress.advance()
        index = writer.index
    sync(new)
    rename(new, file)
    output.write_json(f"{name}.json", index)


def _copy_files(settings: ShardSettings, output: Output) -> None:
    for name in _COPIED:
        if (settings.source / name).is_file():
            shutil.copyfile(settings.source / name, output.model / name)


def _manifest(
    settings: ShardSettings, config: ModelConfig, output: Output, begun: dict[str, Any]
) -> Manifest:
    quantization = config.quantization
    return Manifest(
        source=str(settings.source.resolve()),
        source_digest=begun["source_digest"],
        tp_size=settings.tp_size,
        dtype=settings.dtype,
        vectors=begun["vectors"],
        lm_head_bits=settings.lm_head_bits,
        dense=() if quantization is None else tuple(sorted(quantization.dense)),
        biased=() if quantization is None else tuple(sorted(quantization.biased)),
        files={file.name: _entry(file) for file in output.model.iterdir() if file.name != MANIFEST},
    )


def _entry(file: Path) -> FileEntry:
    is_small = file.suffix != ".bin"
    return FileEntry(file.stat().st_size, sha256(file) if is_small else None)
