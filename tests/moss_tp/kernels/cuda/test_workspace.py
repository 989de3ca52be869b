"""The memory of a step: what is reserved suffices for every step within the limits, and no more
is taken."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tp.errors import StepMemoryError
from moss_tp.kernels.base import DenseWeight
from moss_tp.kernels.cuda.block import CudaBlock
from moss_tp.kernels.cuda.head import CudaLinear, CudaNorm
from moss_tp.kernels.cuda.workspace import BlockShape, HeadShape, Workspace
from moss_tp.kernels.device_plan import StepLimits
from tests.moss_tp.kernels.cuda.attention.paged import SHAPE, step_of
from tests.moss_tp.kernels.paged_case import make_case
from tests.moss_tp.kernels.test_block import HIDDEN, input_of, weights

CPU = torch.device("cpu")
MOSS = (BlockShape(6144, 24576, 24, 256, 8), HeadShape(6144, 107008))
LIMITS = StepLimits(2048, 64, 64, 64, 2048)
SIZES = st.integers(1, 5000)


def published() -> Workspace:
    workspace = Workspace(torch.float16)
    for shape in MOSS:
        workspace.serve(shape)
    return workspace


@given(st.builds(StepLimits, SIZES, SIZES, SIZES, SIZES, SIZES), st.data())
def test_a_larger_step_needs_no_less(limits: StepLimits, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(list(limits.__dataclass_fields__)))
    more = replace(limits, **{field: getattr(limits, field) + data.draw(SIZES)})
    assert published().bytes(limits) <= published().bytes(more)


def test_the_published_model_s_largest_step() -> None:
    """Far below the 2.3 GiB that 35 GiB leave beside fp16 weights and 2,048 tokens."""
    assert 400 << 20 < published().bytes(LIMITS) < 600 << 20


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 300)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_what_is_reserved_suffices(lens: list[tuple[int, int]], idle: int) -> None:
    """For any mix of rows and contexts; and one row more than reserved is refused."""
    case = make_case([(rows, rows + past) for rows, past in lens], torch.float32, SHAPE)
    step = step_of(case, idle=idle)
    workspace = Workspace(torch.float32)
    block = CudaBlock.pack(weights(SHAPE, torch.float32, 2), workspace)
    head = CudaLinear(DenseWeight(torch.ones(50, HIDDEN)), False, workspace)
    norm = CudaNorm(torch.ones(HIDDEN), torch.zeros(HIDDEN), 1e-5, workspace)
    limits = replace(step.limits(), max_logit_rows=len(lens))
    workspace.reserve(limits, CPU)
    taken = {name: buffer.data_ptr() for name, buffer in workspace.buffers.items()}
    own = block(input_of(case), step.rotary, step.cache, step.plan)
    x = block.finish(own, input_of(case))
    index = torch.arange(len(lens), dtype=torch.int32)
    logits = head(norm(x, index))
    assert logits.shape == (len(lens), 50)
    assert {name: buffer.data_ptr() for name, buffer in workspace.buffers.items()} == taken
    assert workspace.bytes(limits) == workspace.num_reserved
    with pytest.raises(StepMemoryError, match="logits"):
        head(torch.ones(len(lens) + 1, HIDDEN))
    with pytest.raises(StepMemoryError, match="normed"):
        block.normed(torch.ones(len(x) + 64, HIDDEN))


def test_buffers_do_not_overlap() -> None:
    workspace = published()
    workspace.reserve(StepLimits(3, 2, 2, 2, 300), CPU)
    buffers = workspace.buffers
    for index, buffer in enumerate(buffers.values()):
        buffer.fill_(index)
    for index, (name, buffer) in enumerate(buffers.items()):
        assert buffer.eq(index).all(), name
        assert buffer.data_ptr() % 16 == 0


def test_without_a_reservation_buffers_grow() -> None:
    workspace, like = Workspace(torch.float16), torch.empty(4, 2)

    def take(rows: int) -> Tensor:
        return workspace.take("a", (rows, 8), like, torch.float16)

    first = take(4)
    assert take(2).data_ptr() == first.data_ptr()
    assert take(5).shape == (5, 8)
    assert take(5).dtype == torch.float16
    assert workspace.rows("b", like, 3).shape == (4, 3)
