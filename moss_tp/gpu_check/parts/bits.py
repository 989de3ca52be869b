"""One row's logits, computed in every way: they all have the same bits.

It is a decode, a drafted row, or the end of a chunk of 64 or 1,024, beside up to 127 others; with
block tables as long as needed, and as long as beside a long context.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.tools.plans import Chunk, device_plan
from moss_tp.gpu_check.tools.shapes import MOSS, TINY, Shape
from moss_tp.gpu_check.tools.speeds import kind_of
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.layers.kv_cache import KVCache
from moss_tp.model import MossForCausalLM, load_model
from moss_tp.parallel.tp_group import TPGroup

BLOCK_SIZE = 16
LAYERS, VOCABULARY = 3, 4096
LENGTH = 1088  # the row is the last of so many
# How the row comes: the chunks of its sequence, of which the last ends with it.
ROUTES = {
    "as a decode": (1024, 1087, 1088),
    "as the last of 8 drafted rows": (1024, 1080, 1088),
    "in a chunk of 64": (1024, 1088),
    "in a chunk of 1,024": (64, 1088),
}
BATCHES = (1, 8, 32, 128)
# Tokens that block tables hold at least, once more for the largest batch. As many as a step with
# long contexts has make its partial results too many: its rows go through their contexts unsplit.
LONG_TABLE = 2048
OTHER_BLOCKS = 16  # of each other sequence
# Dtype, the cache's, bits of the blocks' weights (0: dense), and whether these are in act-order.
KINDS = (
    ("float16", "float16", 0, False),
    ("float16", "int8", 0, False),
    ("bfloat16", "bfloat16", 0, False),
    ("float16", "float16", 4, False),
    ("float16", "float16", 4, True),
    ("bfloat16", "bfloat16", 8, False),
)


@dataclass(frozen=True)
class Bench:
    """A model over a cache in which the sequence has the first blocks, in disorder."""

    model: MossForCausalLM
    kv: KVCache
    table: list[int]
    token_ids: Tensor  # (LENGTH,)
    device: torch.device

    def step(self, start: int, end: int, batch: int, table: int = 0) -> Tensor:
        """Logits of row `end - 1`, with rows from `start` on and the decodes of others around,
        and block tables of at least `table` tokens."""
        others = [self._other(index) for index in range(batch - 1)]
        half = len(others) // 2
        chunks = [*others[:half], Chunk(self.table, start, end), *others[half:]]
        plan = device_plan(chunks, BLOCK_SIZE, self.device, table)
        ids = torch.ones(plan.num_rows, dtype=torch.int32, device=self.device)
        ids[half : half + end - start] = self.token_ids[start:end]
        rows = torch.tensor([half + end - start - 1], dtype=torch.int32, device=self.device)
        logits = self.model.forward(ids, plan, rows, self.kv)
        assert logits is not None
        return logits[0].clone()

    def _other(self, index: int) -> Chunk:
        first = len(self.table) + index * OTHER_BLOCKS
        length = 1 + (index * 37) % (OTHER_BLOCKS * BLOCK_SIZE)
        return Chunk(list(range(first, first + OTHER_BLOCKS)), length - 1, length)

    def route(self, ends: tuple[int, ...], batch: int, table: int = 0) -> Tensor:
        start = 0
        for end in ends[:-1]:
            self.step(start, end, 1)
            start = end
        return self.step(start, ends[-1], batch, table)


def run(check: Check) -> None:
    for kind in KINDS if check.is_full else (("float32", "float32", 0, False),):
        _compare(check, *kind)


@torch.inference_mode()
def _compare(check: Check, dtype: str, cache_dtype: str, bits: int, has_act_order: bool) -> None:
    scale = 1 if check.is_full else 16
    batches = [batch for batch in BATCHES if check.is_full or batch < 32]
    shape = MOSS.with_layers(LAYERS, VOCABULARY) if check.is_full else TINY
    if bits:
        shape = shape.quantized(bits, has_act_order)
    bench = _bench(check, shape, dtype, cache_dtype, LENGTH // scale, max(batches))
    routes = {
        name: tuple(dict.fromkeys(-(-end // scale) for end in ends))
        for name, ends in ROUTES.items()
    }
    expected = bench.route(routes["as a decode"], 1)
    equal, total = 0, 0
    for name, ends in routes.items():
        for batch, table in (*((batch, 0) for batch in batches), (max(batches), LONG_TABLE)):
            found = bench.route(ends, batch, table)
            is_equal = torch.equal(found, expected)
            equal, total = equal + is_equal, total + 1
            if not is_equal:
                worst = float((found - expected).abs().max())
                note = f"{name}, batch {batch}, tables of {table}"
                check.figure(f"{kind_of(shape)}{dtype}, cache {cache_dtype}: {note}", worst)
    name = f"{kind_of(shape)}equal logits, {dtype}, cache {cache_dtype}"
    check.verdict(Verdict(name, equal, limit=total, bar=1))
    bench.token_ids[0] += 1  # if nothing depended on anything, all would be equal too
    differs = not torch.equal(bench.route(routes["in a chunk of 64"], 1), expected)
    check.verdict(Verdict("another first token changes them", int(differs), bar=1))


def _bench(
    check: Check, shape: Shape, dtype: str, cache_dtype: str, length: int, batch: int
) -> Bench:
    directory = shape.write(check.directory / "bits")
    group = TPGroup.single(check.device)
    model = load_model(
        directory,
        shape.config,
        group,
        getattr(torch, dtype),
        back_end="cuda",
        load_format="dummy",
    )
    numbers = torch.Generator().manual_seed(0)
    own = -(-length // BLOCK_SIZE)
    num_blocks = own + batch * OTHER_BLOCKS
    kv = KVCache.allocate(
        shape.config,
        group,
        num_blocks,
        BLOCK_SIZE,
        getattr(torch, cache_dtype),
        model.kernels.cache,
    )
    table = torch.randperm(own, generator=numbers).tolist()
    ids = torch.randint(1, shape.vocab_size - 1, (length,), generator=numbers, dtype=torch.int32)
    return Bench(model, kv, table, ids.to(check.device), check.device)
