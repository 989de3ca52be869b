"""What a step takes is never more than what was reserved for the largest one."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moss_tp.accelerator.eager import EagerAccelerator
from moss_tp.engine.graphs.buckets import bucket_rows
from moss_tp.engine.graphs.graph_runner import GraphRunner
from moss_tp.engine.graphs.limits import step_limits
from moss_tp.engine.graphs.memory import _scored, _step, largest_steps
from moss_tp.engine.graphs.step_slot import GraphStep
from moss_tp.engine.scheduling.batch import Batch
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import StepMemoryError
from moss_tp.kernels.cuda.workspace import BlockShape, HeadShape, Workspace
from moss_tp.kernels.device_plan import StepLimits
from moss_tp.sampling.row import SamplingRow
from tests.moss_tp.engine.graphs.runner_steps import Row, launch, open_runner, read
from tests.support.devices.live_bytes import LiveBytes
from tests.support.tiny_moss import make_checkpoint

MAX_ROWS, MAX_SEQS, NUM_DRAFTS, CONTEXT = 48, 4, 7, 64


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphRunner]:
    model = str(make_checkpoint(tmp_path_factory.mktemp("memory") / "model", head_dim=16))
    yield open_runner(
        model,
        EagerAccelerator(),
        max_num_batched_tokens=MAX_ROWS,
        max_num_seqs=MAX_SEQS,
        num_speculative_tokens=NUM_DRAFTS,
    )


@st.composite
def steps(draw: st.DrawFn) -> list[Row]:
    """Anything that a scheduler may choose: long and short contexts, chunks, drafted rows."""
    left, rows = MAX_ROWS, []
    for number in range(draw(st.integers(1, MAX_SEQS))):
        count = draw(st.one_of(st.just(1), st.just(1 + NUM_DRAFTS), st.integers(1, MAX_ROWS)))
        count = min(count, left)
        if not count:
            break
        left -= count
        before = draw(
            st.one_of(st.just(0), st.just(CONTEXT - count), st.integers(0, CONTEXT - count))
        )
        logits = draw(st.integers(0, min(count, 1 + NUM_DRAFTS)))
        scored = draw(st.sampled_from([0, 0, count - 1]))
        rows.append(Row(number, [number] * count, before, logits, num_scored=scored))
    return rows


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=steps())
def test_no_step_takes_more_than_is_reserved(runner: GraphRunner, rows: list[Row]) -> None:
    """The kernels' memory refuses to grow, so a step that needs more raises StepMemoryError."""
    num_tokens = sum(row.num_logits + row.num_scored for row in rows)
    assert len(read(launch(runner, *rows))) == num_tokens


def test_a_step_beyond_the_limits_is_refused(runner: GraphRunner) -> None:
    """Else the test above would show nothing."""
    memory = runner.model.kernels.memory
    assert memory is not None
    memory.reserve(StepLimits(8, 1, 8, 1, CONTEXT), runner.group.device)
    with pytest.raises(StepMemoryError):
        read(launch(runner, Row(0, [0] * 40)))
    memory.reserve(step_limits(runner.engine), runner.group.device)
    assert len(read(launch(runner, Row(0, [0] * 40)))) == 1


# The published model, on one rank.
MOSS = BlockShape(hidden=6144, inner=4 * 6144, heads=24, head_dim=256, leaves=8)
MOSS_HEAD = HeadShape(hidden=6144, vocab=107_008)


def moss_bytes(limits: StepLimits) -> int:
    workspace = Workspace(torch.float16)
    workspace.serve(MOSS)
    workspace.serve(MOSS_HEAD)
    return workspace.bytes(limits)


def config_of(rows: int, seqs: int, drafts: int, context: int) -> EngineConfig:
    return EngineConfig(
        "m",
        max_model_len=context,
        max_num_seqs=seqs,
        max_num_batched_tokens=max(rows, seqs),
        num_speculative_tokens=drafts,
    )


def test_64_sequences_of_8_drafted_rows_and_2048_tokens_are_within_the_limits() -> None:
    config = EngineConfig("m", device="cuda", max_model_len=2048)
    limits = step_limits(config)
    drafted = StepLimits(64 * 8, 64, 64 * 8, 64, 2048)
    assert moss_bytes(drafted) <= moss_bytes(limits) < 2 << 30
    assert bucket_rows(limits)[-1] == 64 * 8


@given(
    rows=st.integers(1, 4096),
    seqs=st.integers(1, 256),
    drafts=st.integers(0, 20),
    context=st.integers(2, 4096),
    share=st.floats(0, 1),
)
def test_a_smaller_step_needs_no_more(
    rows: int, seqs: int, drafts: int, context: int, share: float
) -> None:
    config = config_of(rows, seqs, drafts, context)
    limits = step_limits(config)

    def part(count: int) -> int:
        return max(1, int(count * share))

    smaller = StepLimits(
        max_rows=part(limits.max_rows),
        max_seqs=part(limits.max_seqs),
        max_logit_rows=part(limits.max_logit_rows),
        max_short_tiles=part(limits.max_short_tiles),
        max_context=part(limits.max_context),
    )
    assert moss_bytes(smaller) <= moss_bytes(limits)


@given(
    rows=st.integers(1, 2000),
    seqs=st.integers(1, 100),
    drafts=st.integers(0, 15),
    context=st.integers(2, 2048),
)
def test_profiling_runs_steps_of_the_largest_size(
    rows: int, seqs: int, drafts: int, context: int
) -> None:
    config = config_of(rows, seqs, drafts, context)
    limits = step_limits(config)
    batches = largest_steps(config)
    possible = min(limits.max_rows, seqs * context)
    assert max(len(batch.token_ids) for batch in batches) == possible
    logits = max(int(batch.num_logits.sum()) for batch in batches)
    assert logits == min(limits.max_logit_rows, seqs * min(context, 1 + drafts))
    for batch in batches:
        assert len(batch.query_lens) <= seqs
        assert batch.positions.min() >= 0
        assert not batch.block_tables.any()


def test_no_kind_of_step_is_left_for_the_first_request(
    runner: GraphRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU each compiles kernels: one for each choice of tile, with and without a graph."""
    rows: list[int] = []
    launched = runner.launch

    def launch(batch: Batch, sampled: Sequence[SamplingRow]) -> GraphStep:
        rows.append(len(batch.token_ids))
        return launched(batch, sampled)

    monkeypatch.setattr(runner, "launch", launch)
    runner.warm_up()
    assert {1, 16, 17, MAX_ROWS} <= set(rows)
    assert max(rows) == rows[-1] == MAX_ROWS, "the last steps take the most memory"
    assert runner.forward_s == 0


def peak_of(runner: GraphRunner, batches: Sequence[Batch]) -> int:
    with LiveBytes() as live:
        runner._run(batches)
    peak: int = live.peak
    return peak


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphRunner]:
    """The default limits, in contexts of 2,048 tokens."""
    model = tmp_path_factory.mktemp("wide") / "model"
    limits = {"max_model_len": 2048, "max_num_seqs": 64, "max_num_batched_tokens": 1024}
    checkpoint = str(make_checkpoint(model, positions=2048, layers=1, vocab_size=8192))
    yield open_runner(checkpoint, EagerAccelerator(), num_speculative_tokens=7, **limits)


def test_no_step_takes_more_of_torchs_allocator_than_profiling_did(wide: GraphRunner) -> None:
    """64 sequences of 8 drafted rows, mixes of prompts and decodes, and prompts to score."""
    profiled = peak_of(wide, largest_steps(wide.engine))
    for rows in (1, 64, 65, 1000):
        assert 0 < peak_of(wide, [_scored(_step(1000, 3, wide.engine), rows)]) <= profiled
    mixes = ((64, 8 * 64), (64, 513), (5, 700), (1, 1000), (63, 900))
    for seqs, rows in mixes:
        assert 0 < peak_of(wide, [_step(rows, seqs, wide.engine)]) <= profiled
    smaller = peak_of(wide, [_step(8 * 64, 64, wide.engine)])
    assert peak_of(wide, [_step(700, 5, wide.engine)]) > smaller, "the test would see it"


def test_scoring_a_prompt_takes_memory_that_nothing_else_does(wide: GraphRunner) -> None:
    *unscored, scored = largest_steps(wide.engine)
    assert peak_of(wide, unscored) < peak_of(wide, [scored])
