"""The training examples in memory, batches of similar length, and padding.

The batches of an epoch depend only on seed and epoch, so a resumed run sees the same batches as an
uninterrupted one.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from moss_tp.dialogue import Encoder
from moss_tp.finetune.conversation import read_conversations
from moss_tp.finetune.example import MaskOptions, build_example

IGNORED = -100  # the label of a token without loss
_POOL_BATCHES = 50  # as many batches at a time are sorted by length


class _CachingEncoder:
    """An encoder with a cache, which markers, newlines and stock phrases hit."""

    def __init__(self, encoder: Encoder) -> None:
        self._encode = lru_cache(maxsize=100_000)(encoder.encode)
        self.special_id = encoder.special_id

    def encode(self, text: str) -> list[int]:
        return self._encode(text)


class SFTDataset(Dataset[tuple[Tensor, Tensor]]):
    """Conversations as `(ids, labels)`, both int64 `(T,)`. Labels are IGNORED without loss."""

    def __init__(
        self, path: Path, encoder: Encoder, max_seq_len: int, options: MaskOptions
    ) -> None:
        cached = _CachingEncoder(encoder)
        self._ids: list[Tensor] = []
        self._has_loss: list[Tensor] = []
        self._path, self._max_seq_len = path, max_seq_len
        self._num_left_out = self._num_cut = 0
        for conversation in read_conversations(path):
            example = build_example(cached, conversation, max_seq_len, options)
            if example is None:
                self._num_left_out += 1
            else:
                self._num_cut += example.num_turns < len(conversation.turns)
                self._ids.append(torch.tensor(example.ids, dtype=torch.int32))
                self._has_loss.append(torch.tensor(example.has_loss))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        ids = self._ids[index].long()
        return ids, ids.masked_fill(~self._has_loss[index], IGNORED)

    @property
    def digest(self) -> str:
        """Tells data sets apart: a hash of all ids and labels in order."""
        sha = hashlib.sha256()
        for ids, has_loss in zip(self._ids, self._has_loss, strict=True):
            sha.update(ids.numpy().tobytes() + has_loss.numpy().tobytes())
        return sha.hexdigest()

    @property
    def losses(self) -> str | None:
        """What did not fit `max_seq_len`, for the user; None when all did."""
        if not (self._num_left_out or self._num_cut):
            return None
        total = len(self) + self._num_left_out
        return (
            f"{self._path}: of {total} conversations, {self._num_left_out} are left out and "
            f"{self._num_cut} lose their last turns: they do not fit {self._max_seq_len} tokens"
        )

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each example."""
        return [len(ids) for ids in self._ids]


def collate(examples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Right-padded ids and labels `(B, T)`.

    Padding needs no attention mask: attention is causal, so no token with a loss attends to it.
    """
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([ids for ids, _ in examples], batch_first=True)
    labels = pad([labels for _, labels in examples], batch_first=True, padding_value=IGNORED)
    return ids, labels


class LengthGroupedBatches(Sampler[list[int]]):
    """Full batches of similar length, in another random order each epoch.

    accelerate reads `batch_size` and `drop_last` to shard batches over processes.
    """

    drop_last = True

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.epoch = 0
        self.num_skipped = 0

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of `epoch`, without the first `num_skipped`."""
        rng = random.Random(f"{self.seed}/{self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        pool = self.batch_size * _POOL_BATCHES
        for start in range(0, len(order), pool):
            order[start : start + pool] = sorted(
                order[start : start + pool], key=lambda index: self.lengths[index]
            )
        size = self.batch_size
        batches = [order[i * size : (i + 1) * size] for i in range(len(self))]
        rng.shuffle(batches)
        yield from batches[self.num_skipped :]
