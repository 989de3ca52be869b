"""Logits to tokens on the device: the CPU sampler's semantics, without its loops over rows.

    append       ids sampled before, to the counts of penalties
    process      logits -> scores, the best of each group of ids               (row, chunk)
    groups       the groups that hold the best ids; greedy rows are done       (row, plane)
    candidates   the best ids                                                  (row, plane)
    masses       sums of weights, for top-p and for the whole vocabulary       (row, chunk)
    best         sorts the best ids and draws one of them                      (row, plane)
    vocab        draws from the whole vocabulary; logprobs                     (row)

Plane 1 handles the raw logits of rows that want logprobs. Programs that a row does not need end
at once.
"""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.runtime.jit import next_power_of_2, options
from moss_tp.kernels.cuda.runtime.launches import count_launch
from moss_tp.kernels.cuda.runtime.switch import uses_triton
from moss_tp.kernels.cuda.sampling.best import best_kernel
from moss_tp.kernels.cuda.sampling.ids import BLOCK, append_kernel
from moss_tp.kernels.cuda.sampling.packing.block import SamplingInputs
from moss_tp.kernels.cuda.sampling.packing.outputs import SamplerOutputs
from moss_tp.kernels.cuda.sampling.process import process_kernel
from moss_tp.kernels.cuda.sampling.reference import sample_reference
from moss_tp.kernels.cuda.sampling.select import candidates_kernel, groups_kernel
from moss_tp.kernels.cuda.sampling.vocab import masses_kernel, vocab_kernel
from moss_tp.kernels.cuda.sampling.workspace import (
    CHUNK,
    PART,
    SamplerScratch,
    SamplerState,
    group_size,
    weight_scale,
)

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
LAUNCHES = ("append", "process", "groups", "candidates", "masses", "best", "vocab")
VOCAB_WARPS = 16


def sample(
    logits: Tensor,
    inputs: SamplingInputs,
    state: SamplerState,
    scratch: SamplerScratch,
    outputs: SamplerOutputs,
) -> None:
    """Samples a token for each row of `logits (R, vocab_size)`; writes `outputs` and `state`.

    Nothing waits for the device, so a graph can hold it. Logits are not changed. Raises ValueError
    if a tensor's shape or dtype does not fit.
    """
    _check(logits, inputs, state, scratch, outputs)
    for name in LAUNCHES:
        count_launch(f"sample_{name}")
    if uses_triton(logits):
        _process(logits, inputs, state, scratch)
        _select(logits, inputs, scratch, outputs)
        _sum_masses(logits, inputs, scratch)
        _draw_from_best(logits, inputs, scratch, outputs)
        _draw_from_vocab(logits, inputs, state, scratch, outputs)
    else:
        sample_reference(logits, inputs, state, outputs)


def _process(
    logits: Tensor, inputs: SamplingInputs, state: SamplerState, scratch: SamplerScratch
) -> None:
    rows, vocab_size = logits.shape
    max_appends = inputs.appends.shape[1]
    append_kernel[(-(-max_appends // BLOCK),)](
        inputs.header,
        inputs.appends,
        state.sampled,
        state.counts,
        max_appends,
        vocab_size,
        BLOCK=BLOCK,
        **options(4, 1),
    )
    process_kernel[(rows, scratch.num_chunks)](
        logits,
        inputs.header,
        inputs.ints,
        inputs.floats,
        inputs.entries,
        inputs.more_entries,
        state.counts,
        scratch.scores,
        scratch.group_best,
        scratch.chunk_log_sums,
        logits.stride(0),
        vocab_size,
        scratch.num_groups,
        scratch.max_rows * scratch.num_groups,
        inputs.entries.shape[1],
        inputs.more_entries.shape[1],
        CHUNK=CHUNK,
        GROUP=group_size(vocab_size),
        SCALE=weight_scale(vocab_size),
        **options(8, 1),
    )


def _select(
    logits: Tensor, inputs: SamplingInputs, scratch: SamplerScratch, outputs: SamplerOutputs
) -> None:
    rows, vocab_size = logits.shape
    groups_kernel[(rows, 2)](
        inputs.ints,
        scratch.scores,
        scratch.group_best,
        scratch.groups,
        scratch.chunk_log_sums,
        scratch.log_sums,
        scratch.extremes,
        outputs.ids,
        vocab_size,
        scratch.num_groups,
        scratch.num_chunks,
        scratch.max_rows,
        GROUP=group_size(vocab_size),
        GROUPS=next_power_of_2(scratch.num_groups),
        CHUNKS=next_power_of_2(scratch.num_chunks),
        **options(8, 1),
    )
    candidates_kernel[(rows, 2)](
        inputs.ints,
        logits,
        scratch.scores,
        scratch.groups,
        scratch.best,
        logits.stride(0),
        vocab_size,
        scratch.num_groups,
        scratch.max_rows,
        GROUP=group_size(vocab_size),
        **options(8, 1),
    )


def _sum_masses(logits: Tensor, inputs: SamplingInputs, scratch: SamplerScratch) -> None:
    rows, vocab_size = logits.shape
    masses_kernel[(rows, scratch.num_chunks)](
        inputs.ints,
        inputs.doubles,
        scratch.scores,
        scratch.extremes,
        scratch.chunk_masses,
        vocab_size,
        CHUNK=CHUNK,
        SCALE=weight_scale(vocab_size),
        **options(8, 1),
    )


def _draw_from_best(
    logits: Tensor, inputs: SamplingInputs, scratch: SamplerScratch, outputs: SamplerOutputs
) -> None:
    rows, vocab_size = logits.shape
    best_kernel[(rows, 2)](
        inputs.ints,
        inputs.doubles,
        inputs.longs,
        scratch.best,
        scratch.chunk_masses,
        scratch.log_sums,
        scratch.keeps_more,
        outputs.ids,
        outputs.top_ids,
        outputs.top_logprobs,
        vocab_size,
        scratch.num_chunks,
        scratch.max_rows,
        CHUNKS=next_power_of_2(scratch.num_chunks),
        SCALE=weight_scale(vocab_size),
        **options(4, 1),
    )


def _draw_from_vocab(
    logits: Tensor,
    inputs: SamplingInputs,
    state: SamplerState,
    scratch: SamplerScratch,
    outputs: SamplerOutputs,
) -> None:
    rows, vocab_size = logits.shape
    vocab_kernel[(rows,)](
        inputs.ints,
        inputs.doubles,
        inputs.longs,
        logits,
        scratch.scores,
        scratch.extremes,
        scratch.chunk_masses,
        scratch.log_sums,
        scratch.keeps_more,
        outputs.ids,
        outputs.logprobs,
        state.sampled,
        logits.stride(0),
        vocab_size,
        CHUNK=CHUNK,
        CHUNKS=next_power_of_2(scratch.num_chunks),
        PART=PART,
        SCALE=weight_scale(vocab_size),
        **options(VOCAB_WARPS, 1),
    )


def _check(
    logits: Tensor,
    inputs: SamplingInputs,
    state: SamplerState,
    scratch: SamplerScratch,
    outputs: SamplerOutputs,
) -> None:
    if logits.dim() != 2 or logits.stride(1) != 1 or logits.dtype not in DTYPES:
        raise ValueError("logits are not rows of fp16, bf16 or fp32")
    rows, vocab_size = logits.shape
    if {scratch.scores.shape[1], state.counts.shape[1]} != {vocab_size}:
        raise ValueError("logits are not of the sampler's vocabulary")
    places = (len(inputs.ints), len(scratch.scores), len(outputs.ids), len(state.sampled))
    if rows > min(places):
        raise ValueError(f"{rows} rows of logits, but room for {min(places)}")
