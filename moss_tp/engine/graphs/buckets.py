"""Which steps replay a graph, and of how many rows it is.

A graph has a fixed number of rows and as many short tiles as sequences fit into them; both may be
idle. So one graph serves every step in which no sequence has more than SHORT_ROWS rows, be they
decodes, drafted rows to verify in any mixture, or the ends of prompts. Steps with longer chunks
of a prompt run without a graph: there the launches are hidden behind the work.
"""

from bisect import bisect_left

from moss_tp.engine.scheduling.batch import Batch
from moss_tp.kernels.device_plan import SHORT_ROWS, StepLimits


def bucket_rows(limits: StepLimits) -> tuple[int, ...]:
    """1, 2, 4, 8, then by 8 to 64, by 16 up to `max_seqs`, and by 32 above that, where only drafted
    rows are. The last is `max_logit_rows`."""
    seqs, last = limits.max_seqs, limits.max_logit_rows
    decodes = {1, 2, 4, *range(8, 64, 8), *range(64, seqs, 16), seqs}
    drafted = {*range(max(64, seqs), last, 32), last}
    return tuple(sorted(rows for rows in decodes | drafted if rows <= last))


def bucket_of(batch: Batch, buckets: tuple[int, ...]) -> int | None:
    """The rows of the smallest graph that holds `batch`; None if it runs without one."""
    num_rows = len(batch.token_ids)
    if not buckets or num_rows > buckets[-1]:
        return None
    if num_rows > len(batch.query_lens) and batch.query_lens.max() > SHORT_ROWS:
        return None
    return buckets[bisect_left(buckets, num_rows)]
