"""Parts of the sampler's kernels: sort keys, random numbers, weights. All exact or in fp64.

Weights are whole numbers, 2^-SCALE_BITS of the best one's, so that their sums have no order.
"""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit
from moss_tp.kernels.cuda.sampling.packing import block as b

RECORD = tl.constexpr(b.RECORD)
SEED, POSITION = tl.constexpr(b.SEED), tl.constexpr(b.POSITION)
KIND, TOP_K, NUM_LOGPROBS = (tl.constexpr(i) for i in (b.KIND, b.TOP_K, b.NUM_LOGPROBS))
EOS_ID, EOS_BONUS = tl.constexpr(b.EOS_ID), tl.constexpr(b.EOS_BONUS)
TEMPERATURE, TOP_P = tl.constexpr(b.TEMPERATURE), tl.constexpr(b.TOP_P)
MIN_LOG_WEIGHT = tl.constexpr(b.MIN_LOG_WEIGHT)
IDLE, GREEDY = tl.constexpr(int(b.Kind.IDLE)), tl.constexpr(int(b.Kind.GREEDY))
BEST_64, IS_TOP_P = tl.constexpr(int(b.Kind.BEST_64)), tl.constexpr(int(b.Kind.TOP_P))
VOCAB, VOCAB_CUT = tl.constexpr(int(b.Kind.VOCAB)), tl.constexpr(int(b.Kind.VOCAB_CUT))

MAX_ID = tl.constexpr(2**31 - 1)
NOTHING = tl.constexpr(float("-inf"))


@jit
def ascending(x: tl.tensor) -> tl.tensor:
    """uint32 that ascend with fp32 x; 0 and -0 are equal. -inf has 0x007FFFFF, 0 is below all."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.uint32, bitcast=True)
    return tl.where((bits >> 31) != 0, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@jit
def value_of(key: tl.tensor) -> tl.tensor:
    """The fp32 of which `key` is `ascending`."""
    bits = tl.where((key >> 31) != 0, key & 0x7FFFFFFF, key ^ 0xFFFFFFFF)
    return bits.to(tl.uint32).to(tl.float32, bitcast=True)


@jit
def greatest(keys: tl.tensor, count: tl.tensor) -> tl.tensor:
    """Which `count` of the uint32 keys `(N,)` are the greatest; of equals, the first."""
    least = (count * 0).to(tl.uint32)  # of those keys, bit after bit
    one = tl.full((), 1, tl.uint32)
    for step in range(32):
        trial = least | (one << (tl.full((), 31, tl.int32) - step).to(tl.uint32))
        least = tl.where(tl.sum((keys >= trial).to(tl.int32), 0) >= count, trial, least)
    is_above = keys > least
    is_equal = (keys == least).to(tl.int32)
    num_missing = count - tl.sum(is_above.to(tl.int32), 0)
    return is_above | ((is_equal != 0) & (tl.cumsum(is_equal, 0) <= num_missing))


@jit
def descending(keys: tl.tensor, index: tl.tensor, LOG2: tl.constexpr) -> tl.tensor:
    """Sorts `keys (2 ** LOG2,)`, of which `index` is the range: a bitonic network."""
    for stage in tl.static_range(1, LOG2 + 1):
        for step in tl.static_range(stage):
            stride = 2 ** (stage - 1 - step)
            other = tl.gather(keys, index ^ stride, 0)
            takes_greater = ((index & stride) == 0) == ((index & 2**stage) == 0)
            keys = tl.where((keys > other) == takes_greater, keys, other)
    return keys


@jit
def uniform(longs: tl.tensor, row: tl.tensor) -> tl.tensor:
    """The row's random number, fp64 in [0, 1): see `moss_tp.sampling.uniforms`."""
    record = longs + row * (RECORD // 2)
    golden = 0x9E3779B97F4A7C15
    seed = tl.load(record + SEED).to(tl.uint64)
    position = tl.load(record + POSITION).to(tl.uint64)
    mixed = _mix(_mix(seed + golden) + position * golden)
    return (mixed >> 11).to(tl.int64).to(tl.float64) * (1.0 / (1 << 53))


@jit
def _mix(x: tl.tensor) -> tl.tensor:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@jit
def whole_weight(log_weight: tl.tensor, is_kept: tl.tensor, SCALE: tl.constexpr) -> tl.tensor:
    """int64 weights of fp64 log weights up to 0."""
    weight = tl.exp(tl.where(is_kept, log_weight, -1e3))
    return (weight * SCALE + 0.5).to(tl.int64)


@jit
def pick(cumulative: tl.tensor, target: tl.tensor) -> tl.tensor:
    """The first index whose cumulative weight is above `target`."""
    return tl.sum((cumulative <= target).to(tl.int32), 0)


@jit
def target_of(number: tl.tensor, total: tl.tensor) -> tl.tensor:
    """int64: floor(number * total), below total."""
    return tl.minimum((number * total.to(tl.float64)).to(tl.int64), total - 1)
