"""Length-grouped batches and padding."""

import json
from pathlib import Path

import torch

from moss_tp.finetune.dataset import IGNORED, LengthGroupedBatches, SFTDataset, collate
from moss_tp.finetune.example import MaskOptions
from tests.support.published_chat import published_chat

LENGTHS = [(7 * i) % 40 + 3 for i in range(103)]


def batches(epoch: int = 0, num_skipped: int = 0) -> list[list[int]]:
    sampler = LengthGroupedBatches(LENGTHS, batch_size=5, seed=3)
    sampler.epoch, sampler.num_skipped = epoch, num_skipped
    return list(sampler)


def test_epoch_has_full_batches_of_distinct_examples() -> None:
    made = batches()
    seen = [index for batch in made for index in batch]
    assert {len(batch) for batch in made} == {5}
    assert len(seen) == len(set(seen)) == 100


def test_epochs_differ_and_are_deterministic() -> None:
    assert batches(0) == batches(0)
    assert batches(0) != batches(1)


def test_skipped_batches_come_from_the_front() -> None:
    assert batches(2, num_skipped=7) == batches(2)[7:]


def test_batches_have_similar_lengths() -> None:
    spreads = [max(lens) - min(lens) for lens in ([LENGTHS[i] for i in b] for b in batches())]
    assert sum(spreads) / len(spreads) < 5


def test_padding_has_no_label() -> None:
    long, short = torch.tensor([4, 5, 6]), torch.tensor([7])
    ids, labels = collate([(long, long), (short, short)])
    assert ids.tolist() == [[4, 5, 6], [7, 0, 0]]
    assert labels.tolist() == [[4, 5, 6], [7, IGNORED, IGNORED]]


class LetterEncoder:
    """One token a character; `<eoh>` and the like are one too."""

    def encode(self, text: str) -> list[int]:
        return [ord(char) for char in text]

    def special_id(self, token: str) -> int:
        return 1


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    """A conversation loses its last turns; one whose first turn does not fit is left out."""
    long, short = published_chat(), published_chat()
    long["meta_instruction"] = "x" * 1000
    short["chat"].pop("turn_2")
    short["num_turns"] = 1
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(chat) + "\n" for chat in (long, short, published_chat())))
    whole = SFTDataset(file, LetterEncoder(), 2000, MaskOptions())
    assert (len(whole), whole.losses) == (3, None)
    dataset = SFTDataset(file, LetterEncoder(), 250, MaskOptions())
    assert len(dataset) == 2
    assert dataset.losses is not None
    assert "of 3 conversations, 1 are left out and 1 lose their last turns" in dataset.losses
