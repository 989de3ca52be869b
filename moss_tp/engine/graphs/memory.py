"""The steps that take the most of a GPU's memory.

What a step needs is bounded by `StepLimits`. The kernels reserve it once, as a function of those,
and the allocator keeps what it has handed out. So what is free after these steps is free for the KV
cache.
"""

from array import array

import numpy as np

from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig


def largest_steps(config: EngineConfig) -> list[Batch]:
    """As many rows as a step may have: of as few sequences as possible, and of as many. All over
    the longest context, all of which is in block 0."""
    rows = config.max_num_batched_tokens
    fewest = -(-rows // config.context_length)
    most = min(config.max_num_seqs, rows)
    return [_step(rows, num_seqs, config) for num_seqs in (fewest, most) if num_seqs <= most]


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
