"""Where the parts of a step lie in its one block of ints. All int32."""

from dataclasses import dataclass

from moss_tp.engine.graphs.limits import max_long_tiles
from moss_tp.kernels.device_plan import StepLimits

ALIGNMENT = 32  # ints: a part starts at a multiple of 128 bytes, as kernels load them


@dataclass(frozen=True)
class Part:
    start: int
    size: int

    @property
    def span(self) -> slice:
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class StepLayout:
    """`sampling` is the sampler's own block, see `kernels.cuda.sampling`."""

    token_ids: Part  # (T,)
    positions: Part  # (T,)
    slots: Part  # (T,)
    block_tables: Part  # (S, W)
    short_tiles: Part  # (N, 3)
    long_tiles: Part  # (M, 3)
    logit_rows: Part  # (R,)
    sampling: Part
    max_seqs: int
    num_ints: int

    @classmethod
    def of(cls, limits: StepLimits, block_size: int, sampling_ints: int) -> "StepLayout":
        rows, seqs = limits.max_rows, limits.max_seqs
        sizes = {
            "token_ids": rows,
            "positions": rows,
            "slots": rows,
            "block_tables": seqs * (limits.max_context // block_size),
            "short_tiles": 3 * limits.max_short_tiles,
            "long_tiles": 3 * max_long_tiles(limits),
            "logit_rows": limits.max_logit_rows,
            "sampling": sampling_ints,
        }
        parts, end = {}, 0
        for name, size in sizes.items():
            parts[name] = Part(end, size)
            end += -(-size // ALIGNMENT) * ALIGNMENT
        return cls(**parts, max_seqs=seqs, num_ints=end)
