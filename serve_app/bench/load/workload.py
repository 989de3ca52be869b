"""The requests of a benchmark: random token ids, so that no prefix is shared by chance.

Everything is drawn from the `Random` it is given; the same seed gives the same workload.
"""

from dataclasses import dataclass
from random import Random

from serve_app.bench.load.drive import BenchRequest, greedy


@dataclass(frozen=True)
class MixedSpec:
    """Lengths are drawn evenly from ranges, ends included. Requests arrive as a Poisson process
    of `rate` a second; 0 has all of them there at once."""

    num_requests: int = 64
    prompt: tuple[int, int] = (16, 512)
    output: tuple[int, int] = (16, 256)
    rate: float = 0.0


def random_prompt(random: Random, length: int, vocab_size: int) -> list[int]:
    return random.choices(range(vocab_size), k=length)


def same_requests(
    random: Random, num: int, prompt: int, new: int, vocab_size: int
) -> list[BenchRequest]:
    """`num` requests of one size, all there at once."""
    return [
        BenchRequest(random_prompt(random, prompt, vocab_size), greedy(new)) for _ in range(num)
    ]


def mixed_lengths(spec: MixedSpec, seed: int) -> list[tuple[int, int]]:
    """`(prompt, output)` of each request. A generator of their own: peers draw the same."""
    random = Random(seed)
    return [(random.randint(*spec.prompt), random.randint(*spec.output))
            for _ in range(spec.num_requests)]  # fmt: skip


def mixed_requests(
    spec: MixedSpec, seed: int, random: Random, vocab_size: int
) -> list[BenchRequest]:
    """Lengths by `seed`, ids and arrivals by `random`."""
    arrival, requests = 0.0, []
    for prompt, output in mixed_lengths(spec, seed):
        arrival += random.expovariate(spec.rate) if spec.rate else 0.0
        ids = random_prompt(random, prompt, vocab_size)
        requests.append(BenchRequest(ids, greedy(output), arrival))
    return requests
