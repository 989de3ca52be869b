"""A quantized directory through the public API: it just works, on one rank and on two."""

from pathlib import Path

import pytest

from moss_tp import LLM, SamplingParams
from tests.moss_tp.quantized_moss import Gptq, change_config, make_dense, make_quantized

KIND = Gptq(act_order=True, is_symmetric=True)
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
PROMPTS = [[40, 50, 60, 70, 80], [7], list(range(3, 50))]


def tokens_of(directory: Path, tp_size: int) -> list[list[int]]:
    with LLM(str(directory), tp_size=tp_size, dtype="float32", max_model_len=96) as llm:
        return [list(reply.token_ids) for reply in llm.generate(PROMPTS, GREEDY)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With MOSS's own config."""
    directory = make_quantized(tmp_path_factory.mktemp("quantized"), KIND)
    change_config(directory, quantization_config=None, **KIND.fields)
    return directory


@pytest.fixture(scope="module")
def expected(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """The unquantized model's."""
    return tokens_of(make_dense(directory, tmp_path_factory.mktemp("dense"), KIND), 1)


@pytest.mark.parametrize("tp_size", [1, 2])
def test_greedy_tokens_are_those_of_the_unquantized_model(
    directory: Path, expected: list[list[int]], tp_size: int
) -> None:
    assert tokens_of(directory, tp_size) == expected


def test_other_groups_give_other_tokens(
    directory: Path, expected: list[list[int]], tmp_path: Path
) -> None:
    other = make_quantized(tmp_path / "other", Gptq(is_symmetric=True))
    assert tokens_of(other, 1) != expected
