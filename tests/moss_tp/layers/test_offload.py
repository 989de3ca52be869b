"""Streamed weights: their order on a device that is as late, or as early, as it may be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp import kernels
from moss_tp.accelerator.base import Event
from moss_tp.accelerator.eager import EagerAccelerator
from moss_tp.config import ModelConfig
from moss_tp.errors import ConfigError
from moss_tp.kernels.base import BlockWeights, DenseWeight, Kernels
from moss_tp.kernels.reference.attention import attend as reference_attend
from moss_tp.kernels.reference.block import EagerBlock, reference_kernels
from moss_tp.layers import offload
from moss_tp.layers.offload import NUM_BUFFERS, Offload, WeightStream, streamed_layers
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup
from tests.support.devices.lazy_accelerator import LazyAccelerator, LazyQueue
from tests.support.paged_sequences import PagedSequences
from tests.support.tiny_moss import make_checkpoint

LAYERS, STREAMED, WIDTH = 9, (0, 2, 3, 4, 7, 8), 5


@dataclass(frozen=True)
class Affine:
    """x = x @ matrix + vector: a block as far as the stream is concerned."""

    matrix: Tensor
    other: Tensor  # of another dtype, and not aligned
    vector: Tensor

    def tensors(self) -> Sequence[Tensor]:
        return (self.matrix, self.other, self.vector)

    def over(self, tensors: Sequence[Tensor]) -> "Affine":
        return Affine(*tensors)

    def apply(self, x: Tensor) -> None:
        x.copy_(x @ self.matrix + self.other.double() + self.vector)


def blocks() -> list[Affine]:
    numbers = torch.Generator().manual_seed(3)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.double, generator=numbers)

    return [
        Affine(some(WIDTH, WIDTH) / 2, some(1, WIDTH).half(), some(WIDTH)) for _ in range(LAYERS)
    ]


def expected(num_steps: int) -> list[Tensor]:
    x, results = torch.ones(1, WIDTH, dtype=torch.double), []
    for _ in range(num_steps):
        for block in blocks():
            block.apply(x)
        results.append(x.clone())
    return results


def streamed(accelerator: LazyAccelerator, num_steps: int, *, in_graph: bool) -> list[Tensor]:
    """The results of steps whose blocks are queued one by one, or recorded as one graph."""
    stream, used = WeightStream(accelerator), blocks()
    for layer in STREAMED:
        used[layer] = stream.add(layer, used[layer])
    x = torch.ones(1, WIDTH, dtype=torch.double)

    def step() -> None:
        stream.begin()
        for layer, block in enumerate(used):
            stream.before(layer)
            accelerator.compute.launch(lambda block=block: block.apply(x))  # type: ignore[misc]
            stream.after(layer)

    run: Callable[[], None] = accelerator.graph(step).replay if in_graph else step
    results = [torch.zeros_like(x) for _ in range(num_steps)]
    for result in results:
        run()
        accelerator.compute.copy(result, x)
    assert accelerator.compute.record().is_done()
    return results


class Heedless(LazyQueue):
    """Waits for nothing."""

    def wait(self, event: Event) -> None:
        pass


DEVICES = [LazyAccelerator, lambda: LazyAccelerator(is_transfer_early=True)]


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("make", DEVICES)
@pytest.mark.parametrize("piece_bytes", [1 << 26, 64])
def test_results_are_those_of_resident_weights(
    make: Callable[[], LazyAccelerator],
    in_graph: bool,
    piece_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offload, "PIECE_BYTES", piece_bytes)
    found = streamed(make(), 3, in_graph=in_graph)
    assert all(map(torch.equal, found, expected(3)))


def test_computing_without_waiting_for_the_copy_is_noticed() -> None:
    accelerator = LazyAccelerator()
    accelerator.compute = Heedless()
    assert not torch.equal(streamed(accelerator, 1, in_graph=False)[0], expected(1)[0])
    accelerator = LazyAccelerator()
    accelerator.compute = Heedless()
    with pytest.raises(RuntimeError, match="not joined"):
        streamed(accelerator, 1, in_graph=True)


def test_copying_into_a_buffer_in_use_is_noticed() -> None:
    accelerator = LazyAccelerator(is_transfer_early=True)
    accelerator.transfer = Heedless()
    accelerator.transfer.is_early = True
    accelerator.compute.before_each = accelerator.transfer.run_free
    assert not torch.equal(streamed(accelerator, 1, in_graph=False)[0], expected(1)[0])


def test_a_step_that_failed_half_way_leaves_nothing_behind() -> None:
    accelerator = LazyAccelerator()
    stream, used = WeightStream(accelerator), blocks()
    for layer in STREAMED:
        used[layer] = stream.add(layer, used[layer])
    x = torch.ones(1, WIDTH, dtype=torch.double)
    stream.begin()
    stream.before(0)  # and then the step runs out of memory
    stream.begin()
    for layer, block in enumerate(used):
        stream.before(layer)
        accelerator.compute.launch(lambda block=block: block.apply(x))  # type: ignore[misc]
        stream.after(layer)
    assert accelerator.compute.record().is_done()
    assert torch.equal(x, expected(1)[0])


def test_matrices_are_on_the_host_and_in_few_buffers() -> None:
    stream, used = WeightStream(EagerAccelerator()), blocks()
    moved = [stream.add(layer, used[layer]) for layer in STREAMED]
    places = [block.matrix.data_ptr() for block in moved]
    assert len(set(places)) == NUM_BUFFERS
    assert all(first != second for first, second in pairwise(places))
    assert stream.host_bytes == len(STREAMED) * 2 * 256  # each matrix is padded to 256 bytes
    assert torch.equal(moved[0].vector, used[0].vector)  # resident
    with pytest.raises(ConfigError, match="among blocks of 512: this model's are not all stored"):
        stream.add(5, Affine(torch.zeros(99, 99), torch.zeros(1, 1), torch.zeros(1)))


@pytest.mark.parametrize(
    ("num_bytes", "layers"),
    [
        (0, ()),
        (1, (33,)),
        (100, (33,)),
        (101, (16, 33)),
        (400, (8, 16, 25, 33)),
        (10_000, tuple(range(34))),
    ],
)
def test_streamed_layers_are_whole_blocks_and_even(num_bytes: int, layers: tuple[int, ...]) -> None:
    assert streamed_layers(34, 100, num_bytes) == layers


@pytest.mark.parametrize("count", range(1, 35))
def test_gaps_differ_by_one_at_most(count: int) -> None:
    layers = streamed_layers(34, 1, count)
    assert len(set(layers)) == count
    gaps = [after - before for before, after in pairwise((-1, *layers))]
    assert max(gaps) - min(gaps) <= 1


class PlainBlock(EagerBlock):
    """The reference's block over storage of one's choice."""

    def __init__(self, weights: BlockWeights) -> None:
        plain = reference_kernels(torch.float32)
        super().__init__(weights, plain.linear, reference_attend)
        self.weights = weights

    def tensors(self) -> Sequence[Tensor]:
        w = self.weights
        matrices = [dense(part).weight for part in (w.qkv, w.fc_in, w.out, w.fc_out)]
        return [*w.norm, *matrices]

    def over(self, tensors: Sequence[Tensor]) -> "PlainBlock":
        w, (weight, bias, *matrices) = self.weights, tensors
        parts = (w.qkv, w.fc_in, w.out, w.fc_out)
        qkv, fc_in, out, fc_out = (
            DenseWeight(matrix, dense(part).bias)
            for matrix, part in zip(matrices, parts, strict=True)
        )
        norm = (weight, bias)
        return PlainBlock(BlockWeights(norm, w.eps, qkv, fc_in, out, fc_out, w.head_dim, w.leaves))


def dense(weight: object) -> DenseWeight:
    assert isinstance(weight, DenseWeight)
    return weight


def streaming_kernels(dtype: torch.dtype, head_dim: int) -> Kernels:
    return Kernels(dtype, reference_kernels(dtype).linear, PlainBlock)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), layers=5)


@pytest.mark.parametrize("load_format", ["auto", "dummy"])
@pytest.mark.parametrize("num_blocks", [1, 2, 3, 5])
def test_a_model_with_streamed_blocks_gives_the_same_logits(
    load_format: str, num_blocks: int, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.BACK_ENDS, "streaming", streaming_kernels)
    config, group = ModelConfig.from_dir(checkpoint), TPGroup.single("cpu")
    num_bytes = num_blocks * 4 * 12 * config.hidden_size**2

    def logits(offload: Offload | None) -> list[Tensor | None]:
        model = load_model(
            checkpoint,
            config,
            group,
            torch.float32,
            "streaming",
            load_format=load_format,
            offload=offload,
        )
        steps = PagedSequences(model, config, group)
        return [steps.step({"a": [1, 2, 3], "b": [9]}), steps.step({"b": [4], "c": [5, 6]})]

    resident, moved = logits(None), logits(Offload(num_bytes, EagerAccelerator()))
    for left, right in zip(resident, moved, strict=True):
        assert left is not None and right is not None
        assert torch.equal(left, right)


def test_streamed_blocks_are_never_loaded_to_the_device(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.BACK_ENDS, "streaming", streaming_kernels)
    config, group = ModelConfig.from_dir(checkpoint), TPGroup(0, 1, torch.device("meta"))
    offload = Offload(2 * 4 * 12 * config.hidden_size**2, EagerAccelerator())
    model = MossForCausalLM(config, group, torch.float32, "streaming", offload)
    on_host = {name for name, p in model.named_parameters() if not p.is_meta}
    blocks = {name.split(".")[2] for name in on_host}
    assert blocks == {"2", "4"}
    assert len(on_host) == 2 * 8  # all parameters of a block


def test_kernels_that_cannot_stream_are_refused(checkpoint: Path) -> None:
    config, group = ModelConfig.from_dir(checkpoint), TPGroup.single("cpu")
    with pytest.raises(ConfigError, match="cpu_offload_gb"):
        load_model(
            checkpoint,
            config,
            group,
            torch.float32,
            offload=Offload(1, EagerAccelerator()),
        )
