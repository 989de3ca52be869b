"""Logits to tokens on the device: the CPU sampler's semantics, without its loops over rows."""

import torch
from torch import Tensor

from moss_tp.kernels.cuda.runtime.switch import uses_triton
from moss_tp.kernels.cuda.sampling.block import SamplingInputs
from moss_tp.kernels.cuda.sampling.outputs import SamplerOutputs
from moss_tp.kernels.cuda.sampling.reference import sample_reference
from moss_tp.kernels.cuda.sampling.workspace import SamplerScratch, SamplerState

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


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
    if uses_triton(logits):
        raise NotImplementedError
    sample_reference(logits, inputs, state, outputs)


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
