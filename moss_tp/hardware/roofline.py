"""Lower bounds on a step's memory traffic and arithmetic, from the model's dimensions alone.

    limit = max(bytes / memory bandwidth, flops / GEMM throughput)

A step reads every weight, as it is stored, except the embedding table (one row per token of that)
and the K and V of every context. It does one multiply-add per weight and token, and two per
context position, hidden dimension and layer (scores, then values). Activations stay in caches and
are not counted, nor are norms, rotary and softmax.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

LM_HEAD = "lm_head"
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Dimensions(Protocol):
    """The part of `moss_tp.config.ModelConfig` that determines the cost of a step."""

    @property
    def num_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int]]: ...
    def matrix_bytes(self, layer: str, item_bytes: int) -> int: ...


class Speeds(Protocol):
    """The part of `GpuRates`, or of a CPU's, that bounds a step."""

    @property
    def read_bytes_s(self) -> float: ...
    @property
    def flops_s(self) -> float: ...


@dataclass(frozen=True)
class StepCost:
    """The least memory traffic and arithmetic of a step."""

    bytes: int
    flops: int

    def limit_s(self, speeds: Speeds) -> float:
        """The shortest time a step can take on such a machine."""
        return max(self.bytes / speeds.read_bytes_s, self.flops / speeds.flops_s)

    def bound(self, speeds: Speeds) -> str:
        """What limits the step: `memory` or `compute`."""
        is_memory = self.bytes / speeds.read_bytes_s >= self.flops / speeds.flops_s
        return "memory" if is_memory else "compute"


def num_block_weights(model: Dimensions) -> int:
    """Entries of the weight matrices of one block: q, k, v, out and the two of the MLP."""
    hidden = model.hidden_size
    return 4 * hidden * hidden + 2 * hidden * model.intermediate_size


def matrix_bytes(model: Dimensions, item_bytes: int) -> tuple[int, int]:
    """Bytes of the weight matrices of all blocks, and of the LM head's: `item_bytes` a value, or
    levels, scales and zeros where a layer is quantized."""
    layers = {name: model.matrix_bytes(name, item_bytes) for name in model.linear_layers}
    head = layers.pop(LM_HEAD)
    return sum(layers.values()), head


def streamed_bytes(model: Dimensions, offloaded: int, item_bytes: int, num_ranks: int = 1) -> int:
    """What all ranks stream from host memory in a step, if each keeps at least `offloaded` bytes of
    its blocks' weights there, in whole blocks."""
    block = matrix_bytes(model, item_bytes)[0] // model.num_layers
    num_blocks = -(-offloaded * num_ranks // block)
    return min(num_blocks, model.num_layers) * block


def kv_bytes_per_token(model: Dimensions, item_bytes: int) -> int:
    """Bytes of K and V over all layers."""
    return 2 * model.num_layers * model.hidden_size * item_bytes


def step_cost(
    model: Dimensions, chunks: Sequence[tuple[int, int]], item_bytes: int, num_logits: int
) -> StepCost:
    """The cost of a step over `chunks` with causal attention.

    A chunk is `(new tokens, context length after them)`. `num_logits` rows go through the LM head.
    """
    hidden = model.hidden_size
    tokens = sum(new for new, _ in chunks)
    blocks = model.num_layers * num_block_weights(model)
    head = hidden * model.vocab_size if num_logits else 0
    block_bytes, head_bytes = matrix_bytes(model, item_bytes)
    read = block_bytes + (head_bytes if num_logits else 0) + tokens * hidden * item_bytes
    read += sum(context for _, context in chunks) * kv_bytes_per_token(model, item_bytes)
    # Token i of a chunk attends to `context - new + i` positions: summed over i = 1..new.
    attended = sum(new * (2 * context - new + 1) // 2 for new, context in chunks)
    flops = 2 * tokens * blocks + 2 * num_logits * head + 4 * attended * hidden * model.num_layers
    return StepCost(read, flops)


def decode_cost(model: Dimensions, batch: int, context: int, item_bytes: int) -> StepCost:
    """One new token for each of `batch` sequences; `context` is the length including it."""
    return step_cost(model, [(1, context)] * batch, item_bytes, batch)


def prefill_cost(model: Dimensions, tokens: int, item_bytes: int) -> StepCost:
    """A whole prompt in one step, and the logits of its last token."""
    return step_cost(model, [(tokens, tokens)], item_bytes, 1)
