"""A model's sizes, read from the published `config.json` of its directory.

Also resolves a hub id to a directory. It reads neither weights nor tokenizer files.
"""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Self

from huggingface_hub import snapshot_download

from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.json_file import read_json

# MOSS has CodeGen's architecture; see moss_tp/model.py.
ARCHITECTURES = ("MossForCausalLM", "CodeGenForCausalLM")
ACTIVATION = "gelu_new"
# The rows of a stored qkv_proj come in this many groups, independent of the tensor-parallel size.
QKV_GROUPS = 4
NOT_QUANTIZED = 32

# Files of a hub snapshot to download: never the Python files that a repository may contain.
_TEXT_FILES = ("*.json", "merges.txt", "meta_instruction.txt")
_WEIGHT_FILES = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class ModelConfig:
    """A MOSS model's sizes. The first `rotary_dim` dimensions of each head are rotated.
    `wbits` 32 means that the weights are not quantized."""

    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    intermediate_size: int
    rotary_dim: int
    vocab_size: int
    max_position_embeddings: int
    layer_norm_eps: float
    wbits: int = NOT_QUANTIZED
    groupsize: int = 128

    @classmethod
    def from_dir(cls, path: str | Path) -> Self:
        """The config of a model directory.

        Raises CheckpointError, naming the file, when it is missing, when the model has another
        architecture or is quantized, or when a field is missing or impossible.
        """
        file = Path(path) / "config.json"
        fields = read_json(file)
        try:
            _check_architecture(fields)
            config = cls(**_translate(fields))
            config._check()
        except (TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{file}: {error}") from error
        return config

    def check_tp(self, tp_size: int) -> None:
        """Raises ConfigError when the model cannot be split over `tp_size` ranks."""
        if tp_size < 1 or self.num_heads % tp_size:
            divisors = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            choices = ", ".join(map(str, divisors))
            raise ConfigError(
                f"tp {tp_size} does not divide the model's {self.num_heads} heads: "
                f"choose one of {choices}"
            )
        if self.intermediate_size % tp_size:
            raise ConfigError(
                f"tp {tp_size} does not divide the MLP's {self.intermediate_size} columns"
            )

    def _check(self) -> None:
        """Raises ValueError for sizes that no MOSS model can have."""
        if self.wbits != NOT_QUANTIZED:
            raise ValueError(
                f"quantized checkpoints are not served yet (wbits {self.wbits}); "
                "use the model's unquantized sibling"
            )
        counts = (self.num_layers, self.num_heads, self.head_dim, self.intermediate_size)
        if min(*counts, self.vocab_size, self.max_position_embeddings) < 1:
            raise ValueError("layers, heads, sizes, vocabulary and positions must be positive")
        if self.hidden_size != self.num_heads * self.head_dim or self.hidden_size % QKV_GROUPS:
            raise ValueError(
                f"n_embd {self.hidden_size} must be a multiple of n_head {self.num_heads} "
                f"and of {QKV_GROUPS}"
            )
        if not (isfinite(self.layer_norm_eps) and self.layer_norm_eps > 0):
            raise ValueError(f"layer_norm_epsilon {self.layer_norm_eps} must be positive")
        if not 0 < self.rotary_dim <= self.head_dim or self.rotary_dim % 2:
            raise ValueError(
                f"rotary_dim {self.rotary_dim} must be even and at most the head size "
                f"{self.head_dim}"
            )


def resolve_model(name_or_path: str | Path, *, with_weights: bool = True) -> Path:
    """The local directory of a model that is given as a directory or a hub id.

    A hub id is downloaded or found in the hub's cache. `with_weights=False` leaves the weights
    out: config and tokenizer files are enough for the caller. Raises CheckpointError.
    """
    name = str(name_or_path)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise CheckpointError(f"there is no model directory {name}")
    try:
        files = _TEXT_FILES + (_WEIGHT_FILES if with_weights else ())
        return Path(snapshot_download(name, allow_patterns=list(files)))
    # The hub client raises unrelated errors: its own, httpx's, OSError.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{name} is neither a directory nor a model on the hub: {reason}"
        ) from error


def _check_architecture(fields: dict[str, Any]) -> None:
    """Raises ValueError for a model that `moss_tp.model` does not compute."""
    names = fields.get("architectures") or []
    if not any(name in ARCHITECTURES for name in names):
        found = ", ".join(names) or "none"
        raise ValueError(f"architecture {found} is not one of {', '.join(ARCHITECTURES)}")
    activation = fields.get("activation_function", ACTIVATION)
    if activation != ACTIVATION:
        raise ValueError(f"activation_function {activation} is not {ACTIVATION}")
    if fields.get("tie_word_embeddings", False):
        raise ValueError("tied word embeddings are not a MOSS model's")


def _translate(fields: dict[str, Any]) -> dict[str, Any]:
    """ModelConfig's fields from the published ones.

    Raises ValueError for one that is missing or not a number.
    """
    hidden, heads = _integer(fields, "n_embd"), _integer(fields, "n_head")
    positions = "n_ctx" if fields.get("n_positions") is None else "n_positions"
    return {
        "num_layers": _integer(fields, "n_layer"),
        "hidden_size": hidden,
        "num_heads": heads,
        "head_dim": hidden // heads if heads > 0 else 0,
        "intermediate_size": _integer(fields, "n_inner", 4 * hidden),
        "rotary_dim": _integer(fields, "rotary_dim"),
        "vocab_size": _integer(fields, "vocab_size"),
        "max_position_embeddings": _integer(fields, positions),
        "layer_norm_eps": float(_number(fields, "layer_norm_epsilon")),
        "wbits": _integer(fields, "wbits", NOT_QUANTIZED),
        "groupsize": _integer(fields, "groupsize", 128),
    }


def _integer(fields: dict[str, Any], name: str, default: int | None = None) -> int:
    """The field as an integer. A null is as good as none."""
    number = _number(fields, name, default)
    if number != number // 1:
        raise ValueError(f"the field {name!r} is {number!r}, not an integer")
    return int(number)


def _number(fields: dict[str, Any], name: str, default: float | None = None) -> float:
    value = fields.get(name)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"the field {name!r} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the field {name!r} is {value!r}, not a number")
    return value
