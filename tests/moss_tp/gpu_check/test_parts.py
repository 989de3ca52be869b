"""Every part runs, on a small model without a GPU; what is wrong is a miss."""

import json
from math import inf
from pathlib import Path

import pytest
import torch

from moss_tp.gpu_check.check import Plan
from moss_tp.gpu_check.part import PARTS
from moss_tp.gpu_check.parts import bits, tokens
from moss_tp.gpu_check.parts.parity import difference
from moss_tp.gpu_check.run import Result, run_part
from moss_tp.gpu_check.tools.cases import Case
from moss_tp.gpu_check.tools.shapes import MOSS
from moss_tp.kernels.cuda.attention.partials import are_few, has_partials

BY_NAME = {part.name: part for part in PARTS}
RATES = {
    "card": "CPU",
    "dtype": "float32",
    "copy_bytes_s": 1e9,
    "read_bytes_s": 1e9,
    "flops_s": 1e9,
    "pinned_bytes_s": 1e9,
}
# What a part finds without a GPU; `limits`, `compiling` and the command have tests of their own.
EXPECTED = {
    "parity": ["relative error in float16", "relative error in float32"],
    "bits": ["equal logits, float32, cache float32", "another first token changes them"],
    "sampler": ["rows that differ"],
    "hangs": ["noticed after", "closed in"],
    "speed": ["decode, batch 1, context 40", "decode, batch 4, context 29", "prefill of 33"],
    "quantized": [
        "int4: decode, batch 2, context 29",
        "int4: prefill of 24",
        "int8: decode, batch 2, context 29",
        "int8: prefill of 24",
    ],
    "memory": [],
    "host": [
        "host's time of a decode step, batch 1",
        "host's time of a decode step, batch 64",
    ],
    "peers": [
        "first product, 2 rows, speed beside cuBLAS's",
        "second product, 2 rows, speed beside cuBLAS's",
        "attention, batch 2, context 40, speed beside torch's",
        "attention, batch 2, context 40, reading",
    ],
    "race": [],
    "offload": [
        "decode with 0.0 GiB on the host, batch 1",
        "decode with 0.0 GiB on the host, batch 8",
    ],
}


def run(name: str, directory: Path) -> Result:
    plan = Plan("cpu", "tiny", directory, {"limits": {"rates": RATES}})
    return run_part(BY_NAME[name], plan, 120)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_part(name: str, tmp_path: Path) -> None:
    result = run(name, tmp_path)
    assert not result.error, result.figures["log"]
    assert [verdict.name for verdict in result.verdicts] == EXPECTED[name]
    misses = [verdict.line for verdict in result.verdicts if not verdict.passes]
    assert not misses


def test_tokens_are_compared_with_the_cpus(tmp_path: Path) -> None:
    first = run("tokens", tmp_path)
    assert not first.error, first.figures["log"]
    assert first.passes and [verdict.share for verdict in first.verdicts] == [1, None]
    file = tmp_path / "small" / tokens.FILE
    expected = json.loads(file.read_text())
    expected["3"][0][5] += 1
    expected["14"][1][0][1] += 0.01
    file.write_text(json.dumps(expected))
    again = run("tokens", tmp_path)
    assert not again.error and not any(verdict.passes for verdict in again.verdicts)
    assert again.figures["together, request 3"]["cpu"] == expected["3"][0]


def test_two_ranks_on_one_card(tmp_path: Path) -> None:
    result = run("ranks", tmp_path)
    assert not result.error, result.figures["log"]
    assert [verdict.name for verdict in result.verdicts] == [
        "replies of two ranks on one card",
        "logprobs of prompts of two ranks on one card, the largest difference",
    ]
    assert result.passes


def test_every_part_is_tested() -> None:
    assert {*EXPECTED, "compiling", "limits", "tokens", "ranks"} == set(BY_NAME)


def test_bits_are_compared_with_split_contexts_and_without() -> None:
    split = [
        are_few(batch, MOSS.heads, 132)
        and has_partials(batch, bits.LENGTH, MOSS.heads, MOSS.head_dim)
        for batch in bits.BATCHES
    ]
    assert split == [True, True, False, False]


def test_what_a_kernel_does_not_write_is_a_difference() -> None:
    def half(t: dict[str, torch.Tensor]) -> None:
        t["out"][: len(t["x"]) // 2] = t["x"][: len(t["x"]) // 2]

    def random(t: dict[str, torch.Tensor]) -> None:
        t["out"].copy_(torch.rand(8))

    tensors = {"x": torch.rand(8), "out": torch.empty(8)}
    cpu = torch.device("cpu")
    assert difference(Case("half", tensors, ("out",), half), cpu) == inf
    assert difference(Case("random", tensors, ("out",), random), cpu) > 0.01
