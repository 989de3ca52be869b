"""Parity with transformers' CodeGenForCausalLM, and between tensor-parallel sizes.

Tolerance: another order of summation changes fp32 logits of size ~10 by 1e-5; 1e-4 leaves room
for other machines. The negative controls show that real mistakes exceed it by far.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp.parallel.tp_group import TPGroup
from tests.moss_tp.model.ranks import (
    LOGIT_IDS,
    PROMPTS,
    SCHEDULES,
    STEPS,
    Measured,
    Replies,
    broken_logits,
    logits_by_schedule,
    measure,
)
from tests.support.run_distributed import run_distributed
from tests.support.tiny_moss import VOCAB_SIZE, load_oracle, make_checkpoint

TOLERANCE = 1e-4
BF16_TOLERANCE = 0.02
INT8_TOLERANCE = 0.02
NUM_LAYERS = 2
TP_SIZES = (1, 2, 4)
SHAPES = ("heads4", "heads8", "heads12", "heads24")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "heads4": make_checkpoint(root / "a", heads=4, head_dim=16, rotary_dim=8, seed=3),
        "heads8": make_checkpoint(root / "b", heads=8, head_dim=8, rotary_dim=8, format="bin"),
        "heads12": make_checkpoint(
            root / "c", heads=12, head_dim=10, rotary_dim=6, inner=100, vocab_size=278, seed=1
        ),
        "heads24": make_checkpoint(
            root / "d", heads=24, head_dim=6, rotary_dim=4, format="bin", seed=3
        ),
    }


@pytest.fixture(scope="module")
def oracle_logits(checkpoints: dict[str, Path]) -> dict[str, Tensor]:
    with torch.no_grad():
        return {
            name: load_oracle(path)(torch.tensor([LOGIT_IDS])).logits[0]
            for name, path in checkpoints.items()
        }


@pytest.fixture(scope="module")
def oracle_replies(checkpoints: dict[str, Path]) -> dict[str, Replies]:
    return {name: _oracle_replies(checkpoints[name]) for name in SHAPES}


@pytest.fixture(scope="module", params=TP_SIZES, ids=lambda size: f"tp{size}")
def measured(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> dict[str, Measured]:
    tp_size: int = request.param
    if tp_size == 1:
        return measure(TPGroup.single("cpu"), SHAPES, checkpoints)
    return run_distributed(measure, tp_size, SHAPES, checkpoints)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_transformers(
    shape: str, measured: dict[str, Measured], oracle_logits: dict[str, Tensor]
) -> None:
    assert_parity(measured[shape].logits, oracle_logits[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_one_rank(
    shape: str, measured: dict[str, Measured], checkpoints: dict[str, Path]
) -> None:
    single = measure(TPGroup.single("cpu"), (), {shape: checkpoints[shape]})[shape].logits
    assert single is not None
    assert_parity(measured[shape].logits, single)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_tokens_equal_those_of_transformers(
    shape: str,
    schedule: str,
    measured: dict[str, Measured],
    oracle_replies: dict[str, Replies],
) -> None:
    assert measured[shape].replies[schedule] == oracle_replies[shape]


def test_oracle_replies_vary(oracle_replies: dict[str, Replies]) -> None:
    """Otherwise equal replies would prove little."""
    for replies in oracle_replies.values():
        assert all(len(set(reply)) > STEPS // 8 for reply in replies.values())


@pytest.mark.parametrize("shape", SHAPES)
def test_step_has_one_all_reduce_a_block(shape: str, measured: dict[str, Measured]) -> None:
    is_alone = measured[shape].tp_size == 1
    expected = {} if is_alone else {"all_reduce": NUM_LAYERS + 1, "gather": 1}
    assert measured[shape].step_counts == expected


def test_broken_models_fail_parity(
    checkpoints: dict[str, Path], oracle_logits: dict[str, Tensor]
) -> None:
    broken = run_distributed(broken_logits, 2, checkpoints["heads4"])[0]
    assert_parity(broken.pop("correct"), oracle_logits["heads4"])
    assert len(broken) == 1 + NUM_LAYERS + 1
    for why, logits in broken.items():
        with pytest.raises(AssertionError, match="differ"):
            assert_parity(logits, oracle_logits["heads4"])
            pytest.fail(f"{why} was not caught")
        assert logits is not None
        assert mean_difference(logits, oracle_logits["heads4"]) > BF16_TOLERANCE


@pytest.mark.parametrize("tp_size", [1, 2])
def test_bf16_is_within_its_rounding(
    tp_size: int, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """The oracle computes in fp32 with the same bf16 weights. Where our arithmetic is in fp32 only
    the KV cache is rounded (2**-9 of each value), else everything is."""
    path = make_checkpoint(
        tmp_path / "bf16", heads=4, head_dim=16, rotary_dim=8, dtype=torch.bfloat16
    )
    with torch.no_grad():
        expected = load_oracle(path)(torch.tensor([LOGIT_IDS])).logits[0]
    if tp_size == 1:
        logits = logits_by_schedule(TPGroup.single("cpu"), path, torch.bfloat16, torch.bfloat16)
    else:
        logits = run_distributed(logits_by_schedule, tp_size, path, torch.bfloat16, torch.bfloat16)[
            0
        ]
    for schedule, actual in logits.items():
        assert actual is not None
        assert mean_difference(actual, expected) < BF16_TOLERANCE, schedule


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_cache_is_within_its_rounding(
    shape: str, tp_size: int, checkpoints: dict[str, Path], oracle_logits: dict[str, Tensor]
) -> None:
    """Everything else is in fp32. A cached value is off by at most 1/254 of its row's maximum."""
    arguments = (checkpoints[shape], torch.float32, torch.int8)
    if tp_size == 1:
        logits = logits_by_schedule(TPGroup.single("cpu"), *arguments)
    else:
        logits = run_distributed(logits_by_schedule, tp_size, *arguments)[0]
    for schedule, actual in logits.items():
        assert actual is not None
        difference = mean_difference(actual, oracle_logits[shape])
        assert TOLERANCE < difference < INT8_TOLERANCE, schedule


def mean_difference(logits: Tensor, reference: Tensor) -> float:
    """The mean difference, relative to the logits' mean size."""
    return ((logits - reference).abs().mean() / reference.abs().mean()).item()


def assert_parity(logits: Tensor | None, reference: Tensor) -> None:
    assert logits is not None
    assert logits.dtype == torch.float32
    assert logits.shape == reference.shape == (len(LOGIT_IDS), reference.shape[-1])
    difference = (logits - reference).abs().max().item()
    assert difference < TOLERANCE, f"logits differ by {difference}"


def _oracle_replies(path: Path) -> Replies:
    oracle = load_oracle(path)
    replies = {}
    for name, prompt in PROMPTS.items():
        output = oracle.generate(
            torch.tensor([prompt]),
            max_new_tokens=STEPS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=VOCAB_SIZE - 1,
        )
        replies[name] = output[0, len(prompt) :].tolist()
    return replies
