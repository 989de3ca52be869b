"""The tensors that a MOSS checkpoint must have, and the comparison with those it has.

It is strict: a name that is missing, left over, of another shape or not of floats is an error
that says which. It depends on no layer, reads no file and needs no torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from moss_tp.config import ModelConfig
from moss_tp.errors import CheckpointError

Shape = tuple[int, ...]
# safetensors' names of the dtypes that are numbers as they stand: others need scales, or are ids.
FLOATS = ("F64", "F32", "F16", "BF16")
# Buffers that published CodeGen checkpoints carry beside the parameters.
_BUFFERS = re.compile(r"\.attn\.(causal_mask|masked_bias|bias)$")
_MAX_NAMED = 5


class Header(NamedTuple):
    """What a file says about one of its tensors. `dtype` is in safetensors' spelling."""

    shape: Shape
    dtype: str
    file: Path


def published_shapes(config: ModelConfig) -> dict[str, Shape]:
    """The shape of every parameter of a MOSS model, by its published name."""
    hidden, inner, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    block = {
        "ln_1.weight": (hidden,),
        "ln_1.bias": (hidden,),
        "attn.qkv_proj.weight": (3 * hidden, hidden),
        "attn.out_proj.weight": (hidden, hidden),
        "mlp.fc_in.weight": (inner, hidden),
        "mlp.fc_in.bias": (inner,),
        "mlp.fc_out.weight": (hidden, inner),
        "mlp.fc_out.bias": (hidden,),
    }
    blocks = {
        f"transformer.h.{layer}.{name}": shape
        for layer in range(config.num_layers)
        for name, shape in block.items()
    }
    return {
        "transformer.wte.weight": (vocab, hidden),
        **blocks,
        "transformer.ln_f.weight": (hidden,),
        "transformer.ln_f.bias": (hidden,),
        "lm_head.weight": (vocab, hidden),
        "lm_head.bias": (vocab,),
    }


def check_tensors(headers: Mapping[str, Header], wanted: Mapping[str, Shape]) -> None:
    """Raises CheckpointError unless the tensors are floats of exactly the `wanted` names and
    shapes, buffers aside."""
    found = {name: header for name, header in headers.items() if not _BUFFERS.search(name)}
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "left over": [f"{n}{_in_file(found[n])}" for n in sorted(found.keys() - wanted.keys())],
        "misshapen": [
            f"{name} {found[name].shape} instead of {shape}{_in_file(found[name])}"
            for name, shape in sorted(wanted.items())
            if name in found and found[name].shape != shape
        ],
        "not floats": [
            f"{name} {header.dtype}{_in_file(header)}"
            for name, header in sorted(found.items())
            if name in wanted and header.dtype not in FLOATS
        ],
    }
    text = "; ".join(
        f"{problem}: {_listing(names)}" for problem, names in problems.items() if names
    )
    if text:
        raise CheckpointError(f"the checkpoint's tensors are not the model's. {text}")


def _in_file(header: Header) -> str:
    return f" in {header.file}"


def _listing(names: Sequence[str]) -> str:
    num_more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {num_more} more" if num_more > 0 else "")
