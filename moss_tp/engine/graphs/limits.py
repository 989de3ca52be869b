"""The largest step that an engine can make: memory is reserved for it before anything runs."""

from moss_tp.engine_config import EngineConfig
from moss_tp.kernels.device_plan import LONG_ROWS, SHORT_ROWS, StepLimits


def step_limits(config: EngineConfig) -> StepLimits:
    """Of a resolved config. The scheduler makes no larger step, and a graph has no more rows."""
    rows, seqs = config.max_num_batched_tokens, config.max_num_seqs
    return StepLimits(
        max_rows=rows,
        max_seqs=seqs,
        # A sequence has one row of logits, and one more for each drafted token.
        max_logit_rows=min(rows, seqs * (1 + config.num_speculative_tokens)),
        max_short_tiles=seqs,
        max_context=table_width(config) * config.block_size,
    )


def table_width(config: EngineConfig) -> int:
    """Blocks of the longest sequence."""
    return -(-config.context_length // config.block_size)


def max_long_tiles(limits: StepLimits) -> int:
    """Each sequence of more than SHORT_ROWS rows has at most one tile that is not full."""
    num_seqs = min(limits.max_seqs, limits.max_rows // (SHORT_ROWS + 1))
    return (limits.max_rows + (LONG_ROWS - 1) * num_seqs) // LONG_ROWS
