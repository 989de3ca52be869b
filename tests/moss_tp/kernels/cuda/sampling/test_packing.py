"""A step's settings in their block, and what comes back."""

import struct
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.kernels.cuda.sampling.packing import block as b
from moss_tp.kernels.cuda.sampling.packing.block import BlockLayout, Kind, SamplingInputs
from moss_tp.kernels.cuda.sampling.packing.encode import Encoder
from moss_tp.kernels.cuda.sampling.packing.outputs import SamplerOutputs, decode
from moss_tp.kernels.cuda.sampling.packing.penalty_slots import SlotChanges
from moss_tp.sampling.row import SampledToken, SamplingRow
from moss_tp.sampling.token_history import TokenHistory
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.kernels.cuda.sampling.random_rows import Case, make_sampler
from tests.moss_tp.kernels.cuda.sampling.test_against_cpu import num_differing

VOCAB = 300
LAYOUT = BlockLayout(max_rows=6, max_entries=4)

ids = st.integers(0, VOCAB - 1)
params = st.builds(
    SamplingParams,
    temperature=st.floats(0, 10),
    top_k=st.integers(0, 2 * VOCAB),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0, 10, exclude_min=True),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(ids, st.floats(-100, 100), max_size=5),
    length_penalty=st.floats(0, 10, exclude_min=True),
    regulation_start=st.integers(0, 10),
    logprobs=st.none() | st.integers(0, 20),
)


@st.composite
def sampling_rows(draw: st.DrawFn) -> SamplingRow:
    chosen = draw(params)
    history = TokenHistory(draw(st.lists(ids, max_size=5)))
    for token_id in (output := draw(st.lists(ids, max_size=5))):
        history.append(token_id)
    return SamplingRow(
        chosen,
        draw(st.integers(0, 2**63 - 1)),
        len(output),
        history if chosen.has_penalties else None,
        (),
        tuple(draw(st.sets(ids, max_size=3))),
        draw(st.none() | ids),
    )


def encode(rows: list[SamplingRow], num_rows: int) -> tuple[SamplingInputs, np.ndarray | None]:
    block = np.full(LAYOUT.num_ints, -1, np.int32)
    changes = SlotChanges(appends=[(2, 9), (0, -1)], slots=[-1 - i for i in range(len(rows))])
    more = Encoder(LAYOUT, VOCAB).encode(rows, changes, block, num_rows)
    return SamplingInputs.of(torch.from_numpy(block), LAYOUT, torch.empty(2, 0)), more


@given(st.lists(sampling_rows(), min_size=1, max_size=6), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_all_settings_act_as_on_the_cpu(rows: list[SamplingRow], seed: int) -> None:
    logits = torch.randn(len(rows), VOCAB, generator=torch.Generator().manual_seed(seed)) * 3
    assert num_differing(Case(logits, rows)) == 0


def test_a_record_holds_a_rows_settings() -> None:
    made = SamplingParams(
        temperature=0.5, top_k=7, top_p=0.25, min_p=0.5, repetition_penalty=1.5, logprobs=3
    )
    inputs, _ = encode([SamplingRow(made, 2**63 - 1, 2**40, blocked_ids=(4,))], 2)
    assert inputs.longs[0, [b.SEED, b.POSITION]].tolist() == [2**63 - 1, 2**40]
    doubles = inputs.doubles[0, [b.TEMPERATURE, b.TOP_P, b.MIN_LOG_WEIGHT]]
    assert doubles.tolist() == [0.5, 0.25, np.log(0.5)]
    whole = [b.KIND, b.TOP_K, b.NUM_LOGPROBS, b.EOS_ID, b.FIRST_ENTRY, b.END_ENTRY]
    assert inputs.ints[0, whole].tolist() == [Kind.BEST_64, 7, 3, -1, 0, 1]
    assert inputs.floats[0, b.REPETITION] == 1.5
    assert inputs.entries[:, 0].tolist() == [4, struct.unpack("<i", struct.pack("<f", -np.inf))[0]]
    assert inputs.appends[:, :2].tolist() == [[2, 0], [9, -1]]
    assert inputs.header[b.NUM_APPENDS] == 2
    assert inputs.ints[1, b.KIND] == Kind.IDLE
    assert inputs.ints[2, b.KIND] == -1, "beyond the step's rows nothing is written"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"temperature": 0}, Kind.GREEDY),
        ({"top_k": 64}, Kind.BEST_64),
        ({"top_k": 65}, Kind.BEST_256),
        ({"top_k": 257}, Kind.VOCAB_CUT),
        ({"top_k": 0, "top_p": 0.9}, Kind.TOP_P),
        ({"top_k": 0, "top_p": 1}, Kind.VOCAB),
    ],
)
def test_the_kind_of_a_row(changes: dict[str, float], kind: Kind) -> None:
    inputs, _ = encode([SamplingRow(SamplingParams(**changes), 0, 0)], 1)  # type: ignore[arg-type]
    assert inputs.ints[0, b.KIND] == kind


def test_more_entries_than_places_are_returned() -> None:
    rows = [SamplingRow(SamplingParams(logit_bias=((i, 1.0), (9, 2.0))), 0, 0) for i in range(3)]
    inputs, more = encode(rows[:2], 2)
    assert more is None
    assert inputs.entries[0].tolist() == [0, 9, 1, 9]
    assert not inputs.header[b.HAS_MORE_ENTRIES]
    inputs, more = encode(rows, 3)
    assert more is not None
    assert more[0].tolist() == [0, 9, 1, 9, 2, 9]
    assert inputs.header[b.HAS_MORE_ENTRIES]


def test_a_step_without_rows() -> None:
    sampler = make_sampler(Case(torch.zeros(2, VOCAB), []))
    block = np.full(sampler.num_ints, 1, np.int32)
    sampler.encode((), block, 2)
    sampler.sample(torch.zeros(2, VOCAB), torch.from_numpy(block))
    assert sampler.token_ids.tolist() == [0, 0]
    assert sampler.decode(sampler.outputs, ()) == []


def test_decoding() -> None:
    outputs = SamplerOutputs.allocate(3, torch.device("cpu"))
    outputs.ids.copy_(torch.tensor([5, 6, 7]))
    outputs.logprobs[1] = -0.5
    outputs.top_ids[1, :2] = torch.tensor([6, 8])
    outputs.top_logprobs[1, :2] = torch.tensor([-0.5, -2.0])
    plain, two, none = (SamplingParams(logprobs=count) for count in (None, 2, 0))
    rows = [SamplingRow(one, 0, 0) for one in (plain, two, none)]
    assert decode(outputs.packed, rows, VOCAB) == [
        SampledToken(5),
        SampledToken(6, -0.5, ((6, -0.5), (8, -2.0))),
        SampledToken(7, 0.0, ()),
    ]


def test_encoding_takes_little_time() -> None:
    """0.03 ms for 64 rows on an EPYC core; the bar is generous, for a machine that is busy."""
    rows = [SamplingRow(SamplingParams(repetition_penalty=1), i, 3) for i in range(64)]
    sampler = make_sampler(Case(torch.zeros(64, VOCAB), []))
    block = np.zeros(sampler.num_ints, np.int32)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        sampler.encode(rows, block, 64)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3
