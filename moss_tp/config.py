"""A model's sizes, read from the published `config.json` of its directory.

Also resolves a hub id to a directory. It reads neither weights nor tokenizer files.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd, isfinite
from pathlib import Path
from typing import Any, Self

from huggingface_hub import snapshot_download

from moss_tp.errors import CheckpointError, ConfigError
from moss_tp.json_file import integer_field, number_field, read_json
from moss_tp.quant_config import LM_HEAD, QuantConfig, QuantFormat
from moss_tp.quant_fields import read_quantization

# MOSS has CodeGen's architecture; see moss_tp/model.py.
ARCHITECTURES = ("MossForCausalLM", "CodeGenForCausalLM")
ACTIVATION = "gelu_new"
# The rows of a stored qkv_proj come in this many groups, independent of the tensor-parallel size.
QKV_GROUPS = 4
MAX_LAYERS = 10_000  # a mistake beyond it, whose names alone would fill the memory
MAX_LEAVES = 8
# The linear layers of a block.
QKV_PROJ, OUT_PROJ = "attn.qkv_proj", "attn.out_proj"
FC_IN, FC_OUT = "mlp.fc_in", "mlp.fc_out"

# Files of a hub snapshot to download: never the Python files that a repository may contain.
_TEXT_FILES = ("*.json", "merges.txt", "meta_instruction.txt")
_WEIGHT_FILES = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class ModelConfig:
    """A MOSS model's sizes, and how its linear layers are stored where they are quantized. The
    first `rotary_dim` dimensions of each head are rotated."""

    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    intermediate_size: int
    rotary_dim: int
    vocab_size: int
    max_position_embeddings: int
    layer_norm_eps: float
    quantization: QuantConfig | None = None

    @classmethod
    def from_dir(cls, path: str | Path) -> Self:
        """The config of a model directory.

        Raises CheckpointError, naming the file, when it is missing, when the model has another
        architecture or is quantized in a way that is not served, or when a field is missing or
        impossible.
        """
        file = Path(path) / "config.json"
        fields = read_json(file)
        try:
            _check_architecture(fields)
            quantization = read_quantization(Path(path), fields)
            config = cls(**_translate(fields), quantization=quantization)
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
        for layer in self.linear_layers:
            self._check_cut(layer, tp_size)

    @cached_property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Outputs and inputs of every linear layer, by name."""
        hidden, inner = self.hidden_size, self.intermediate_size
        block = {
            QKV_PROJ: (3 * hidden, hidden),
            OUT_PROJ: (hidden, hidden),
            FC_IN: (inner, hidden),
            FC_OUT: (hidden, inner),
        }
        layers = {
            f"{block_name(number)}.{name}": shape
            for number in range(self.num_layers)
            for name, shape in block.items()
        }
        return layers | {LM_HEAD: (self.vocab_size, hidden)}

    @property
    def num_leaves(self) -> int:
        """Into how many parts each block's sums are cut, on any number of ranks; see
        `kernels.leaves`. The largest power of two, up to MAX_LEAVES, that divides the heads and the
        MLP's columns."""
        return gcd(self.num_heads, self.intermediate_size, MAX_LEAVES)

    def leaves_of_rank(self, tp_size: int) -> int:
        """One where the ranks do not divide the leaves: the bits of its sums are not those of
        other numbers of ranks."""
        return 1 if self.num_leaves % tp_size else self.num_leaves // tp_size

    def format_of(self, layer: str) -> QuantFormat | None:
        """How a linear layer is quantized; None: it is not."""
        return None if self.quantization is None else self.quantization.format_of(layer)

    def with_rounded_head(self, bits: int | None) -> Self:
        """This config, to count bytes by, where an LM head that is not quantized is rounded to
        `bits` when it is loaded; the same where that is None."""
        if bits is None or self.format_of(LM_HEAD) is not None:
            return self
        head = QuantFormat(bits, group_size=-1)
        quantization = self.quantization or QuantConfig(head, block_layers=frozenset())
        return replace(self, quantization=quantization.with_head(head))

    def has_bias(self, layer: str) -> bool:
        """Whether a linear layer has a bias, or a quantizer has given it one."""
        is_biased = self.quantization is not None and layer in self.quantization.biased
        return is_biased or not layer.endswith((QKV_PROJ, OUT_PROJ))

    def matrix_bytes(self, layer: str, item_bytes: int) -> int:
        """Of a linear layer's weight: `item_bytes` a value unless it is quantized."""
        outputs, inputs = self.linear_layers[layer]
        form = self.format_of(layer)
        return outputs * inputs * item_bytes if form is None else form.num_bytes(outputs, inputs)

    def _check_cut(self, layer: str, tp_size: int) -> None:
        """Raises ConfigError for a quantized layer that is cut within a word."""
        form = self.format_of(layer)
        if form is None or layer == LM_HEAD:  # whose parts are rounded up
            return
        parts = {FC_IN: self.intermediate_size, FC_OUT: self.intermediate_size}
        cut = parts.get(layer.split(".", 3)[-1], self.hidden_size) // tp_size
        if layer.endswith(QKV_PROJ):
            cut = gcd(cut, self.hidden_size // QKV_GROUPS)
        if cut % form.per_word:
            raise ConfigError(
                f"tp {tp_size} cuts {layer} into parts of {cut}, but its {form.bits} bits are "
                f"packed {form.per_word} to a word: choose a smaller tp"
            )

    def _check(self) -> None:
        """Raises ValueError for sizes that no MOSS model can have."""
        counts = (self.num_layers, self.num_heads, self.head_dim, self.intermediate_size)
        if min(*counts, self.vocab_size, self.max_position_embeddings) < 1:
            raise ValueError("layers, heads, sizes, vocabulary and positions must be positive")
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"n_layer {self.num_layers} is more than {MAX_LAYERS}")
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
        self._check_words()

    def _check_words(self) -> None:
        """Raises ValueError for a quantized layer that does not fill words of 32 bits."""
        for layer, (outputs, inputs) in self.linear_layers.items():
            form = self.format_of(layer)
            if form is not None and (outputs % form.per_word or inputs % form.per_word):
                raise ValueError(
                    f"{layer} of {inputs} inputs and {outputs} outputs cannot be packed with "
                    f"{form.bits} bits, {form.per_word} to a word"
                )


def block_name(number: int) -> str:
    """Where the parameters of a block are, by name."""
    return f"transformer.h.{number}"


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
    hidden, heads = integer_field(fields, "n_embd"), integer_field(fields, "n_head")
    positions = "n_ctx" if fields.get("n_positions") is None else "n_positions"
    return {
        "num_layers": integer_field(fields, "n_layer"),
        "hidden_size": hidden,
        "num_heads": heads,
        "head_dim": hidden // heads if heads > 0 else 0,
        "intermediate_size": integer_field(fields, "n_inner", 4 * hidden),
        "rotary_dim": integer_field(fields, "rotary_dim"),
        "vocab_size": integer_field(fields, "vocab_size"),
        "max_position_embeddings": integer_field(fields, positions),
        "layer_norm_eps": float(number_field(fields, "layer_norm_epsilon")),
    }
