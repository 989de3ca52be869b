"""Bytes and flops of a step: computed by hand on a small config, and against a real model."""

from dataclasses import dataclass, replace

import torch

from moss_tp.config import ModelConfig
from moss_tp.hardware.roofline import (
    StepCost,
    decode_cost,
    matrix_bytes,
    num_block_weights,
    prefill_cost,
    step_cost,
    streamed_bytes,
)
from moss_tp.model import MossForCausalLM
from moss_tp.parallel.tp_group import TPGroup
from moss_tp.quant_config import QuantConfig, QuantFormat


@dataclass(frozen=True)
class Speeds:
    read_bytes_s: float
    flops_s: float


MODEL = ModelConfig(
    num_layers=3,
    hidden_size=8,
    num_heads=4,
    head_dim=2,
    intermediate_size=20,
    rotary_dim=2,
    vocab_size=100,
    max_position_embeddings=64,
    layer_norm_eps=1e-5,
)
BLOCK = 4 * 8 * 8 + 2 * 8 * 20
HEAD = 8 * 100


def test_weights_are_counted_as_the_model_has_them() -> None:
    model = MossForCausalLM(MODEL, TPGroup.single("cpu"), torch.float32)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2)
    embedding = model.transformer.wte.weight.numel()
    assert 3 * num_block_weights(MODEL) + HEAD == matrices - embedding


def test_decode_by_hand() -> None:
    cost = decode_cost(MODEL, batch=5, context=10, item_bytes=2)
    weights = 3 * BLOCK + HEAD
    kv = 5 * 10 * 2 * 3 * 8
    assert cost.bytes == 2 * (weights + 5 * 8 + kv)
    assert cost.flops == 5 * (2 * weights + 4 * 10 * 8 * 3)


def test_prefill_by_hand() -> None:
    cost = prefill_cost(MODEL, tokens=4, item_bytes=4)
    assert cost.bytes == 4 * (3 * BLOCK + HEAD + 4 * 8 + 4 * 2 * 3 * 8)
    assert cost.flops == 2 * 4 * 3 * BLOCK + 2 * HEAD + 4 * (1 + 2 + 3 + 4) * 8 * 3


def test_chunked_prefill_computes_as_much_and_reads_more() -> None:
    whole = prefill_cost(MODEL, 9, 2)
    chunks = [step_cost(MODEL, [(3, end)], 2, int(end == 9)) for end in (3, 6, 9)]
    assert sum(chunk.flops for chunk in chunks) == whole.flops
    assert sum(chunk.bytes for chunk in chunks) > whole.bytes


def test_the_head_is_read_only_for_logits() -> None:
    assert (
        step_cost(MODEL, [(3, 3)], 2, 1).bytes - step_cost(MODEL, [(3, 3)], 2, 0).bytes == 2 * HEAD
    )


def test_the_slower_of_memory_and_compute_bounds() -> None:
    cost = StepCost(bytes=100, flops=1000)
    slow_memory, slow_compute = Speeds(10, 1e6), Speeds(1e6, 10)
    assert (cost.limit_s(slow_memory), cost.bound(slow_memory)) == (10, "memory")
    assert (cost.limit_s(slow_compute), cost.bound(slow_compute)) == (100, "compute")


def test_a_batch_reads_the_weights_once() -> None:
    speeds = Speeds(1e9, 1e15)
    alone, many = (decode_cost(MODEL, batch, 10, 2).limit_s(speeds) for batch in (1, 8))
    assert alone < many < 8 * alone
    wider = decode_cost(replace(MODEL, intermediate_size=40), 1, 10, 2).limit_s(speeds)
    assert wider > alone


def test_quantized_layers_are_read_as_they_are_stored() -> None:
    model = replace(MODEL, hidden_size=64, head_dim=16, intermediate_size=128, vocab_size=96)
    quantized = replace(model, quantization=QuantConfig(QuantFormat(4, 32)))
    values = num_block_weights(model)
    columns = {64: 3 * 64 + 64 + 128, 128: 64}  # outputs by inputs
    groups = sum(outputs * inputs // 32 for inputs, outputs in columns.items())
    head = 64 * 96 * 2
    assert matrix_bytes(model, 2) == (3 * 2 * values, head)
    assert matrix_bytes(quantized, 2) == (3 * (values // 2 + groups * 5 // 2), head)
    dense, packed = (decode_cost(each, 1, 10, 2) for each in (model, quantized))
    assert dense.flops == packed.flops
    assert dense.bytes - packed.bytes == 3 * (2 * values - values // 2 - groups * 5 // 2)
    assert streamed_bytes(quantized, 1, 2) == matrix_bytes(quantized, 2)[0] // 3


def test_moss_in_4_bits() -> None:
    """The published table says 7.8 GB loaded; embedding and head are 2.6 GB of it."""
    moss = replace(
        MODEL,
        num_layers=34,
        hidden_size=6144,
        num_heads=24,
        head_dim=256,
        intermediate_size=24576,
        vocab_size=107008,
        quantization=QuantConfig(QuantFormat(4, 128)),
    )
    blocks, head = matrix_bytes(moss, 2)
    assert 7.8e9 < blocks < 8.1e9 and head == 2 * 6144 * 107008
