"""Whether a directory of `moss shard` is what an engine asks for, and what it says of the model."""

from dataclasses import replace
from pathlib import Path

from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from moss_tp.weights.digest import weights_digest
from moss_tp.weights.ranks.manifest import Manifest, is_sharded

DEVICE = "cpu"


def resolve_weights(config: EngineConfig) -> EngineConfig:
    """`config` with the LM head's bits of a sharded directory; itself for any other.

    Within seconds, reading no tensor. Raises ConfigError for a directory that is cut or packed for
    something else, or whose source has changed since; CheckpointError for files that are missing,
    cut or changed.
    """
    directory = Path(config.model)
    if config.load_format == "dummy" or not is_sharded(directory):
        return config
    manifest = Manifest.read(directory)
    bits = manifest.lm_head_bits if config.lm_head_bits is None else config.lm_head_bits
    _check("tp", directory, manifest.tp_size, config.tp_size)
    _check("device", directory, DEVICE, config.device)
    _check("dtype", directory, manifest.dtype, config.dtype)
    _check("lm_head_bits", directory, manifest.lm_head_bits, bits)
    check_vectors(directory, manifest)
    _check_source(directory, manifest)
    manifest.check_files(directory)
    return replace(config, lm_head_bits=bits)


def check_vectors(directory: Path, manifest: Manifest) -> None:
    """Raises ConfigError for weights that are packed for another kind of processor."""
    from moss_tp.native.instruction_set import vector_kind  # slow to import

    _check("processor", directory, manifest.vectors, vector_kind())


def _check(name: str, directory: Path, packed: object, wanted: object) -> None:
    if packed != wanted:
        raise ConfigError(
            f"{directory} is sharded for {name} {packed}, not {wanted}: make another directory "
            "with `moss shard`, or serve its source"
        )


def _check_source(directory: Path, manifest: Manifest) -> None:
    source = Path(manifest.source)
    if not (source / "config.json").is_file():
        return  # on another machine, or removed: nothing to compare with
    if weights_digest(source) != manifest.source_digest:
        raise ConfigError(
            f"{source} has changed since {directory} was made of it: make it again with "
            "`moss shard`"
        )
