"""Figures of models beside a reference, against transformers' own logits."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moss_tp.errors import ConfigError
from moss_tp.fidelity.compare import REFERENCE, compare_models
from moss_tp.fidelity.scored_model import ScoredModel, Variant
from tests.support.tiny_moss import load_oracle, make_checkpoint

SEQUENCES = [[token * 37 % 277 for token in range(length)] for length in (150, 64, 2)]


def oracle(directory: Path, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = load_oracle(directory)(torch.tensor([ids])).logits[0]
    return logits.log_softmax(-1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("models")
    return make_checkpoint(directory / "a"), make_checkpoint(directory / "b", seed=1)


def test_figures_are_those_of_transformers_logits(models: tuple[Path, Path]) -> None:
    first, second = models
    done: list[int] = []
    reference, other = (ScoredModel(Variant(path, "float32")) for path in models)
    found = compare_models(reference, {"other": other}, SEQUENCES, done.append)
    assert done == [150, 64, 2]
    true = [oracle(first, ids) for ids in SEQUENCES]
    predicted = [oracle(second, ids) for ids in SEQUENCES]
    pairs = list(zip(true, predicted, strict=True))
    kl = torch.cat([(t.exp() * (t - p)).sum(-1) for t, p in pairs]).mean()
    same = torch.cat([t.argmax(-1) == p.argmax(-1) for t, p in pairs]).float().mean()
    follow = [p[:-1].gather(1, torch.tensor(ids[1:])[:, None]) for ids, p in _with(predicted)]
    assert found["other"].kl == pytest.approx(float(kl), rel=1e-4)
    assert found["other"].top1 == pytest.approx(float(same))
    assert found["other"].perplexity == pytest.approx(
        float(torch.cat(follow).neg().mean().exp()), rel=1e-4
    )
    assert found[REFERENCE].kl == 0 and found[REFERENCE].top1 == 1


def _with(predicted: list[Tensor]) -> list[tuple[list[int], Tensor]]:
    return list(zip(SEQUENCES, predicted, strict=True))


def test_a_rounded_cache_and_head_each_cost_something(models: tuple[Path, Path]) -> None:
    variants = {
        "same": Variant(models[0], "float32"),
        "cache": Variant(models[0], "float32", kv_cache_dtype="int8"),
        "head": Variant(models[0], "float32", lm_head_bits=8),
    }
    loaded = {name: ScoredModel(variant) for name, variant in variants.items()}
    found = compare_models(loaded["same"], loaded, SEQUENCES, lambda num_tokens: None)
    assert found["same"].kl == 0
    assert 0 < found["cache"].kl < 0.1 and 0 < found["head"].kl < 0.1
    assert found["cache"].kl != found["head"].kl


def test_other_vocabularies_and_longer_texts_are_refused(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    first = ScoredModel(Variant(models[0], "float32"))
    other = ScoredModel(Variant(make_checkpoint(tmp_path, vocab_size=281), "float32"))
    with pytest.raises(ConfigError, match="other has 281 tokens, not 277"):
        compare_models(first, {"other": other}, SEQUENCES, lambda num_tokens: None)
    with pytest.raises(ValueError, match="257 tokens are more than"):
        next(first.log_probs([1] * 257))
