"""Measurements on a fake engine whose steps take one second, and the tables made of them."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from moss_tp.hardware.rates import GpuRates
from moss_tp.hardware.roofline import decode_cost, num_block_weights, streamed_bytes
from serve_app.bench.chat_bench import ChatSpec, chat_sections, measure_chat
from serve_app.bench.engine_bench import DecodeRun, Limits, TableRun, TableSpec, table_sections
from serve_app.bench.hardware.machine import Machine
from serve_app.bench.launch import EngineSpec
from serve_app.bench.load.drive import drive
from serve_app.bench.load.workload import MixedSpec, mixed_requests
from serve_app.bench.mixed import mixed_section, summarize
from serve_app.bench.reporting.figures import quantile
from serve_app.bench.soak import Sample, slope_bytes, soak, soak_section
from tests.moss_tp.hardware.test_roofline import MODEL
from tests.serve_app.bench.fake_engine import FakeEngine
from tests.support.tiny_moss import make_checkpoint


def test_decode_is_the_median_run_beside_its_limit() -> None:
    runs = [
        TableRun({2: DecodeRun(0.5, seconds, seconds / 4, seconds / 8)}, {16: 2.0})
        for seconds in (9, 1, 2)
    ]
    # Reading the bytes of a decode step takes 1 s, so the limit of a batch of 2 is 2 tokens/s.
    machine = Machine("cpu", 1, 1, "float32", float(_decode_bytes()), 1e15)
    spec = TableSpec((2,), prompt=8, new=4, prefills=(16,))
    decode, prefill = table_sections({"tp1x1": runs}, spec, Limits(MODEL, machine))
    (row,) = decode.rows
    assert (row["tok_s"], row["limit_tok_s"], row["of_limit"]) == (4.0, 2.0, 2.0)
    assert (row["step_ms"], row["host_ms"], row["bound"]) == (500.0, 250.0, "memory")
    assert prefill.rows[0]["tok_s"] == 8.0
    assert decode.charts[0].series == {"tp1x1": [(2, 4.0)], "limit": [(2, 2.0)]}


def test_streamed_weights_count_the_bus() -> None:
    rates = GpuRates("card", "float32", 1e15, float(_decode_bytes()), 1e15, pinned_bytes_s=10.0)
    cost = decode_cost(MODEL, 2, 10, 4)
    assert Limits(MODEL, rates).limit_s(cost) == 1
    streamed = Limits(MODEL, rates, streamed_bytes=40)
    assert streamed.limit_s(cost) == 4 and streamed.bound(cost) == "bus"
    shorter = Limits(MODEL, rates, streamed_bytes=5)
    assert shorter.limit_s(cost) == 1 and shorter.bound(cost) == "memory"
    block = num_block_weights(MODEL) * 4
    assert streamed_bytes(MODEL, 0, 4) == 0 and streamed_bytes(MODEL, 1, 4) == block
    assert streamed_bytes(MODEL, 10**12, 4) == MODEL.num_layers * block


def test_a_head_that_is_rounded_is_read_as_such(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    spec = EngineSpec(str(tmp_path), tp=1, threads=1, dtype="bfloat16")
    rounded = replace(spec, settings=(("lm_head_bits", 8),))
    model = spec.model_config
    saved = model.vocab_size * (model.hidden_size - 3)
    costs = [decode_cost(one.model_config, 2, 10, 2).bytes for one in (spec, rounded)]
    assert costs[0] - costs[1] == saved


def _decode_bytes() -> int:
    return decode_cost(MODEL, 2, 10, 4).bytes


def test_mixed_workload() -> None:
    engine, spec = FakeEngine(), MixedSpec(4, (2, 9), (5, 5), rate=0)
    requests = mixed_requests(spec, 0, Random(0), 50)
    run = summarize(drive(engine, requests, engine.now, engine.sleep))
    assert (run.seconds, run.output_tokens) == (5, 20)
    assert run.prompt_tokens == sum(len(request.prompt_ids) for request in requests)
    assert (set(run.ttft_s), set(run.gaps_s)) == ({1.0}, {1.0})
    (row,) = mixed_section({"tp1x1": [run]}, spec).rows
    assert (row["output_tok_s"], row["ttft_p99_ms"]) == (4.0, 1000.0)


def test_a_prompt_grows_by_message_and_reply() -> None:
    turns = measure_chat(FakeEngine(), ChatSpec(4, user=3, reply=2), Random(0), 1000)
    assert [turn.prompt_tokens for turn in turns] == [3, 8, 13, 18]
    assert [turn.history_tokens for turn in turns] == [0, 5, 10, 15]
    # The fake caches earlier prompts, so all but the last reply is cached.
    assert [turn.cached_tokens for turn in turns] == [0, 3, 8, 13]
    (row,) = chat_sections({"tp1x1": [turns]}, "chat")[0].rows
    assert (row["history_tokens"], row["cached_of_history"]) == (30, 0.8)


def test_soak_samples_memory_between_batches() -> None:
    engine, memory = FakeEngine(), iter(range(10**6))
    samples = soak(engine, 320, Random(0), 50, lambda: next(memory))
    assert samples[-1].num_requests == len(engine.prompts) == 320
    assert [sample.num_requests for sample in samples] == [64, 128, 192, 256, 320]


def test_growth_is_the_slope_of_the_later_half() -> None:
    flat = [Sample(100 * i, 2**20 * (50 if i > 4 else 10 * i)) for i in range(11)]
    rising = [Sample(100 * i, 7 * 100 * i) for i in range(11)]
    assert slope_bytes(flat) == 0
    assert slope_bytes(rising) == pytest.approx(7)
    assert soak_section("tp1x1", rising).rows[0]["bytes_a_request"] == 7.0


@pytest.mark.parametrize(
    ("q", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1, 100), (0.001, 1)]
)
def test_quantiles_of_1_to_100(q: float, expected: int) -> None:
    assert quantile(list(range(100, 0, -1)), q) == expected


def test_quantile_of_an_empty_list() -> None:
    assert quantile([], 0.5) == 0.0
