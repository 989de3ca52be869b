"""What a step has sampled, packed into one tensor of int32: one copy to the host."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling_params import MAX_LOGPROBS


@dataclass(frozen=True, eq=False)
class SamplerOutputs:
    """Views of `packed`. The last three are valid in rows that want logprobs only, and the last
    two hold fewer than MAX_LOGPROBS of a smaller vocabulary."""

    packed: Tensor  # (R * (2 + 2 * MAX_LOGPROBS),) int32
    ids: Tensor  # (R,) int32
    logprobs: Tensor  # (R,) fp32, of the sampled ids
    top_ids: Tensor  # (R, MAX_LOGPROBS) int32, the most probable first
    top_logprobs: Tensor  # (R, MAX_LOGPROBS) fp32

    @classmethod
    def of(cls, packed: Tensor) -> "SamplerOutputs":
        rows = len(packed) // (2 + 2 * MAX_LOGPROBS)
        ids, logprobs, top_ids, top_logprobs = torch.split(
            packed, [rows, rows, rows * MAX_LOGPROBS, rows * MAX_LOGPROBS]
        )
        return cls(
            packed=packed,
            ids=ids,
            logprobs=logprobs.view(torch.float32),
            top_ids=top_ids.view(rows, MAX_LOGPROBS),
            top_logprobs=top_logprobs.view(torch.float32).view(rows, MAX_LOGPROBS),
        )

    @classmethod
    def allocate(cls, max_rows: int, device: torch.device) -> "SamplerOutputs":
        size = max_rows * (2 + 2 * MAX_LOGPROBS)
        return cls.of(torch.zeros(size, dtype=torch.int32, device=device))


def decode(packed: Tensor, rows: Sequence[SamplingRow], vocab_size: int) -> list[SampledToken]:
    """The tokens of `rows`, from a copy of `SamplerOutputs.packed` on the host."""
    ids = packed[: len(rows)].tolist()  # they come first; views of the rest take longer than this
    tokens = [SampledToken(token_id) for token_id in ids]
    wanted = [i for i, row in enumerate(rows) if row.params.logprobs is not None]
    if not wanted:
        return tokens
    outputs = SamplerOutputs.of(packed)
    # All rows at once: a call of torch takes longer than the rest of a row's work.
    blocks = (outputs.logprobs, outputs.top_ids, outputs.top_logprobs)
    chosen = (block[wanted].tolist() for block in blocks)
    for i, logprob, top_ids, top_logprobs in zip(wanted, *chosen, strict=True):
        count = min(rows[i].params.logprobs or 0, vocab_size)
        pairs = tuple(zip(top_ids[:count], top_logprobs[:count], strict=True))
        tokens[i] = SampledToken(ids[i], logprob, pairs)
    return tokens
