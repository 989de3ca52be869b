"""What a step must read and compute at the least, from the model's shape alone.

    limit = max(bytes / read bandwidth, flops / matrix-product rate)

A step reads every weight but the embedding table (of that, one row a token), and the K and V of
every context; it multiplies and adds once a weight and token, and twice a context position,
hidden dimension and layer (scores, then values). Activations stay in caches and are not counted,
nor are norms, rotary and softmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Shape(Protocol):
    """What of `moss_tp.config.ModelConfig` decides a step's cost."""

    @property
    def num_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


class Speeds(Protocol):
    """What of `machine.Machine` bounds a step."""

    @property
    def read_bytes_s(self) -> float: ...
    @property
    def flops_s(self) -> float: ...


@dataclass(frozen=True)
class Work:
    """A step's least memory traffic and arithmetic."""

    bytes: int
    flops: int

    def limit_s(self, speeds: Speeds) -> float:
        """No step can be faster on such a machine."""
        return max(self.bytes / speeds.read_bytes_s, self.flops / speeds.flops_s)

    def bound(self, speeds: Speeds) -> str:
        """Which of the two it is."""
        is_memory = self.bytes / speeds.read_bytes_s >= self.flops / speeds.flops_s
        return "memory" if is_memory else "compute"


def block_weights(shape: Shape) -> int:
    """Matrix entries of one block: q, k, v and out, and both of the MLP."""
    hidden = shape.hidden_size
    return 4 * hidden * hidden + 2 * hidden * shape.intermediate_size


def kv_bytes_per_token(shape: Shape, item_bytes: int) -> int:
    return 2 * shape.num_layers * shape.hidden_size * item_bytes


def step_work(
    shape: Shape, chunks: Sequence[tuple[int, int]], item_bytes: int, num_logits: int
) -> Work:
    """A step of `chunks`, each `(new tokens, context length after them)`, attended causally.

    `num_logits` rows go through the head.
    """
    hidden = shape.hidden_size
    tokens = sum(new for new, _ in chunks)
    blocks = shape.num_layers * block_weights(shape)
    head = hidden * shape.vocab_size if num_logits else 0
    read = (blocks + head + tokens * hidden) * item_bytes
    read += sum(context for _, context in chunks) * kv_bytes_per_token(shape, item_bytes)
    # A chunk's rows see the context as it grows: on average its end less half the chunk.
    seen = sum(new * (2 * context - new + 1) // 2 for new, context in chunks)
    flops = 2 * tokens * blocks + 2 * num_logits * head + 4 * seen * hidden * shape.num_layers
    return Work(read, flops)


def decode_work(shape: Shape, batch: int, context: int, item_bytes: int) -> Work:
    """One token for each of `batch` sequences, `context` tokens long with it."""
    return step_work(shape, [(1, context)] * batch, item_bytes, batch)


def prefill_work(shape: Shape, tokens: int, item_bytes: int) -> Work:
    """A whole prompt at once, and the logits after it."""
    return step_work(shape, [(tokens, tokens)], item_bytes, 1)
