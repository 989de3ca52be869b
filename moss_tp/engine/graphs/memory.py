"""The steps that take the most of a GPU's memory, and those that compile its kernels.

What a step needs is bounded by `StepLimits`: the kernels reserve most of it once, as a function of
those, and the rest comes from torch's allocator, which keeps what it has handed out. So what is
free after the largest steps is free for the KV cache. Recording a graph makes torch give back what
it keeps, hence the largest steps run again once the cache is allocated and the graphs are recorded.
What only one graph was recorded for, the graphs themselves, is in `DeviceTraits.min_free`.
"""

from array import array
from collections.abc import Sequence

import numpy as np

from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.sampling.scores import MAX_HEAD_ROWS


def largest_steps(config: EngineConfig) -> list[Batch]:
    """As many rows as a step may have: of as few sequences as possible, and of as many; and the
    first once more, with as many rows to score as are scored at once. All over the longest context,
    all of which is in block 0."""
    most = min(config.max_num_seqs, config.max_num_batched_tokens)
    fewest = _fewest_seqs(config.max_num_batched_tokens, config)
    counts = [count for count in (fewest, most) if count <= most]
    steps = [_step(config.max_num_batched_tokens, count, config) for count in counts]
    return [*steps, _scored(steps[0], min(config.max_num_batched_tokens, MAX_HEAD_ROWS))]


def prompt_steps(config: EngineConfig, row_counts: Sequence[int]) -> list[Batch]:
    """A step of each of `row_counts` that a step may have, of as few sequences as possible."""
    rows = [count for count in row_counts if count <= config.max_num_batched_tokens]
    seqs = [(count, _fewest_seqs(count, config)) for count in rows]
    return [_step(count, num, config) for count, num in seqs if num <= config.max_num_seqs]


def _scored(step: Batch, num_rows: int) -> Batch:
    """With the first `num_rows` rows to score."""
    scored = [-1 - num_rows, *range(num_rows), *([0] * num_rows)]
    return Batch(np.concatenate((np.array(scored), step.ints)))


def _fewest_seqs(rows: int, config: EngineConfig) -> int:
    return -(-rows // config.context_length)


def _step(rows: int, num_seqs: int, config: EngineConfig) -> Batch:
    share, rest = divmod(rows, num_seqs)
    lens = [min(share + (i < rest), config.context_length) for i in range(num_seqs)]
    context = config.context_length
    table_len = -(-context // config.block_size)
    ints = array("q", [num_seqs, *lens])
    ints.extend([context] * num_seqs)
    ints.extend(min(length, 1 + config.num_speculative_tokens) for length in lens)
    ints.extend([table_len] * num_seqs)
    ints.extend([0] * (sum(lens) + num_seqs * table_len))
    return Batch(np.frombuffer(ints, np.int64))
