"""Random requests for the benchmarks: random token ids, so that no two prompts share a prefix.

Everything is drawn from the given `Random`: the same seed gives the same workload.
"""

from dataclasses import dataclass
from random import Random

from serve_app.bench.load.drive import BenchRequest, greedy


@dataclass(frozen=True)
class MixedSpec:
    """Prompt and output lengths are uniform over ranges, ends included. Requests arrive as a
    Poisson process of `rate` per second; with rate 0 all are there at the start."""

    num_requests: int = 64
    prompt: tuple[int, int] = (16, 512)
    output: tuple[int, int] = (16, 256)
    rate: float = 0.0


def random_prompt(random: Random, length: int, vocab_size: int) -> list[int]:
    """`length` uniform token ids."""
    return random.choices(range(vocab_size), k=length)


def same_requests(
    random: Random, num: int, prompt: int, new: int, vocab_size: int
) -> list[BenchRequest]:
    """`num` requests with `prompt` prompt tokens and `new` output tokens, all at the start."""
    return [
        BenchRequest(random_prompt(random, prompt, vocab_size), greedy(new)) for _ in range(num)
    ]


def mixed_lengths(spec: MixedSpec, seed: int) -> list[tuple[int, int]]:
    """`(prompt, output)` tokens of each request.

    They depend on `seed` alone, so that benchmarks of other engines can draw the same lengths.
    """
    random = Random(seed)
    return [
        (random.randint(*spec.prompt), random.randint(*spec.output))
        for _ in range(spec.num_requests)
    ]


def mixed_requests(
    spec: MixedSpec, seed: int, random: Random, vocab_size: int
) -> list[BenchRequest]:
    """Lengths drawn from `seed`; token ids and arrival times from `random`."""
    arrival, requests = 0.0, []
    for prompt, output in mixed_lengths(spec, seed):
        arrival += random.expovariate(spec.rate) if spec.rate else 0.0
        ids = random_prompt(random, prompt, vocab_size)
        requests.append(BenchRequest(ids, greedy(output), arrival))
    return requests
