"""The sampler's kernels as they are compiled ahead of time, at MOSS's vocabulary."""

from collections.abc import Iterator
from typing import Any

import torch

from moss_tp.kernels.cuda.runtime.jit import next_power_of_2, pointer
from moss_tp.kernels.cuda.runtime.spec import KernelSpec
from moss_tp.kernels.cuda.sampling.best import best_kernel
from moss_tp.kernels.cuda.sampling.ids import BLOCK, append_kernel, take_ids_kernel
from moss_tp.kernels.cuda.sampling.process import process_kernel
from moss_tp.kernels.cuda.sampling.sample import VOCAB_WARPS
from moss_tp.kernels.cuda.sampling.select import candidates_kernel, groups_kernel
from moss_tp.kernels.cuda.sampling.vocab import masses_kernel, vocab_kernel
from moss_tp.kernels.cuda.sampling.workspace import CHUNK, PART, group_size, weight_scale

VOCAB_SIZE = 107_008

# Arguments by type; all that are in none of these are int32 sizes.
INTS = (
    *("header", "ints", "entries", "more_entries", "appends", "counts", "sampled", "token_ids"),
    *("out", "groups", "keeps_more", "ids", "top_ids"),
)
FLOATS = ("floats", "scores", "group_best", "extremes", "logprobs", "top_logprobs")
DOUBLES = ("doubles", "chunk_log_sums", "log_sums")
LONGS = ("longs", "best", "chunk_masses")
PACKED = ("logprobs", "top_ids", "top_logprobs")  # begin anywhere in SamplerOutputs
SIZES = ("logits_stride", "vocab_size")  # divisible by 16: what else is a size, no kernel looks at


def specs(dtype: torch.dtype, head_dim: int, cc: int) -> Iterator[KernelSpec]:
    """All but logits are alike for every model. See `runtime.cubins.Catalogue`."""
    num_chunks = -(-VOCAB_SIZE // CHUNK)
    group = group_size(VOCAB_SIZE)
    constants = {
        "BLOCK": BLOCK,
        "CHUNK": CHUNK,
        "PART": PART,
        "GROUP": group,
        "GROUPS": next_power_of_2(-(-VOCAB_SIZE // group)),
        "CHUNKS": next_power_of_2(num_chunks),
        "SCALE": weight_scale(VOCAB_SIZE),
    }
    for name, function, num_warps in (
        ("take_ids", take_ids_kernel, 4),
        ("sample_append", append_kernel, 4),
        ("sample_process", process_kernel, 8),
        ("sample_groups", groups_kernel, 8),
        ("sample_candidates", candidates_kernel, 8),
        ("sample_masses", masses_kernel, 8),
        ("sample_best", best_kernel, 4),
        ("sample_vocab", vocab_kernel, VOCAB_WARPS),
    ):
        yield _spec(name, function, num_warps, dtype, constants)


def _spec(
    name: str, function: Any, num_warps: int, dtype: torch.dtype, constants: dict[str, Any]
) -> KernelSpec:
    types = {"logits": pointer(dtype)}
    types |= dict.fromkeys(INTS, "*i32") | dict.fromkeys(FLOATS, "*fp32")
    types |= dict.fromkeys(DOUBLES, "*fp64") | dict.fromkeys(LONGS, "*i64")
    types |= dict.fromkeys(constants, "constexpr")
    signature = {argument: types.get(argument, "i32") for argument in function.arg_names}
    pointers = (key for key, value in signature.items() if value.startswith("*"))
    return KernelSpec(
        name=name,
        function=function,
        signature=signature,
        constants={key: value for key, value in constants.items() if key in signature},
        aligned=(*(key for key in pointers if key not in PACKED), *SIZES),
        num_warps=num_warps,
        num_stages=1,
    )
