"""A step's ints in static tensors against a plain reading of the same Batch."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.graphs.buckets import bucket_of, bucket_rows
from moss_tp.engine.graphs.layout import ALIGNMENT, StepLayout
from moss_tp.engine.graphs.limits import step_limits
from moss_tp.engine.graphs.step_input import StepInput
from moss_tp.engine.graphs.step_views import StepViews, step_views
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.kernels.device_plan import LONG_ROWS, SHORT_ROWS
from tests.moss_tp.engine.graphs.batches import (
    BLOCK_SIZE,
    MAX_CONTEXT,
    NUM_BLOCKS,
    chunk,
    make_batch,
)

CONFIG = EngineConfig(
    "m",
    max_model_len=MAX_CONTEXT,
    block_size=BLOCK_SIZE,
    max_num_seqs=8,
    max_num_batched_tokens=8 * MAX_CONTEXT,
    num_speculative_tokens=3,
)
LIMITS = step_limits(CONFIG)
BUCKETS = bucket_rows(LIMITS)
LAYOUT = StepLayout.of(LIMITS, BLOCK_SIZE, sampling_ints=40)
SPARE_SLOT = NUM_BLOCKS * BLOCK_SIZE

batches = st.lists(chunk(MAX_CONTEXT), min_size=1, max_size=8).map(make_batch)


def filled(batch: Batch, before: Batch | None = None) -> tuple[StepViews, int | None]:
    """The views of `batch`, filled into a block that held the step `before`."""
    block = torch.zeros(LAYOUT.num_ints, dtype=torch.int32)
    step_input = StepInput(block.numpy(), LAYOUT, BLOCK_SIZE, SPARE_SLOT)
    if before is not None:
        step_input.fill(before, bucket_of(before, BUCKETS))
    bucket = bucket_of(batch, BUCKETS)
    return step_views(block, LAYOUT, step_input.fill(batch, bucket), BLOCK_SIZE), bucket


@settings(deadline=None)
@given(before=batches, batch=batches)
def test_rows_and_tables_are_the_batchs(before: Batch, batch: Batch) -> None:
    views, bucket = filled(batch, before)
    num_rows, num_seqs = len(batch.token_ids), len(batch.query_lens)
    plan = views.plan
    assert plan.num_rows == len(views.token_ids) == (num_rows if bucket is None else bucket)
    assert views.token_ids[:num_rows].tolist() == batch.token_ids.tolist()
    assert plan.positions[:num_rows].tolist() == batch.positions.tolist()
    assert plan.slots[:num_rows].tolist() == batch.slots(BLOCK_SIZE).tolist()
    assert len(plan.block_tables) == (num_seqs if bucket is None else min(bucket, 8))
    start = 0
    for table, length in zip(plan.block_tables, batch.table_lens.tolist(), strict=False):
        assert table[:length].tolist() == batch.block_tables[start : start + length].tolist()
        start += length
    assert plan.block_tables.min() >= 0
    assert plan.block_tables.max() < NUM_BLOCKS
    assert plan.max_context >= MAX_CONTEXT
    logit_rows = batch.logit_rows.tolist()
    assert views.logit_rows[: len(logit_rows)].tolist() == logit_rows


@settings(deadline=None)
@given(before=batches, batch=batches)
def test_what_is_idle_does_nothing(before: Batch, batch: Batch) -> None:
    views, bucket = filled(batch, before)
    num_rows, num_seqs = len(batch.token_ids), len(batch.query_lens)
    assert set(views.plan.slots[num_rows:].tolist()) <= {SPARE_SLOT}
    assert not views.token_ids[num_rows:].any()
    assert not views.plan.positions[num_rows:].any()
    num_logits = len(batch.logit_rows)
    assert not views.logit_rows[num_logits:].any()
    if bucket is None:
        assert len(views.logit_rows) == num_logits
        assert len(views.plan.block_tables) == num_seqs


@settings(deadline=None)
@given(before=batches, batch=batches)
def test_every_row_is_in_one_tile(before: Batch, batch: Batch) -> None:
    views, _ = filled(batch, before)
    expected = [
        (seq, row)
        for seq, (start, length) in enumerate(
            zip(batch.query_starts.tolist(), batch.query_lens.tolist(), strict=False)
        )
        for row in range(start, start + length)
    ]
    found = []
    for tiles, most in ((views.plan.short_tiles, SHORT_ROWS), (views.plan.long_tiles, LONG_ROWS)):
        for seq, start, end in tiles.tolist():
            assert 0 <= end - start <= most
            found += [(seq, row) for row in range(start, end)]
    assert sorted(found) == expected
    num_short = int((batch.query_lens <= SHORT_ROWS).sum())
    used = views.plan.short_tiles[:, 1] < views.plan.short_tiles[:, 2]
    assert int(used.sum()) == num_short


def test_a_step_of_the_largest_size_fits() -> None:
    """As many tiles as there can be: sequences of SHORT_ROWS + 1 rows have two long ones."""
    for lens in ([SHORT_ROWS + 1] * 8, [LONG_ROWS + 1] * 8, [MAX_CONTEXT] * 8, [1] * 8):
        batch = make_batch([(length, MAX_CONTEXT, 1) for length in lens])
        views, _ = filled(batch)
        tiles = torch.cat((views.plan.short_tiles, views.plan.long_tiles))
        assert int((tiles[:, 2] - tiles[:, 1]).sum()) == sum(lens)


def test_parts_are_aligned_and_apart() -> None:
    parts = [value for value in vars(LAYOUT).values() if not isinstance(value, int)]
    assert all(part.start % ALIGNMENT == 0 for part in parts)
    used = np.zeros(LAYOUT.num_ints, int)
    for part in parts:
        used[part.span] += 1
    assert used.max() == 1
