"""Generates with CTranslate2 when it is told to, and answers with the seconds that it took.

It runs in CTranslate2's own environment and imports nothing of the project. A line of standard
input is `BATCH PROMPT NEW`: so many sequences of so many random tokens, and so many new ones.

    python tests/foreign/run_ctranslate2.py MODEL THREADS
"""

import json
import random
import sys
import time
from pathlib import Path

import ctranslate2


def generate(
    generator: ctranslate2.Generator, vocabulary: list[str], batch: int, prompt: int, new: int
) -> float:
    """Greedy, without an end."""
    prompts = [random.choices(vocabulary, k=prompt) for _ in range(batch)]
    start = time.perf_counter()
    generator.generate_batch(
        prompts,
        max_length=new,
        min_length=new,
        sampling_topk=1,
        include_prompt_in_result=False,
    )
    return time.perf_counter() - start


def main(directory: str, threads: int) -> None:
    vocabulary = json.loads(Path(directory, "vocabulary.json").read_text("utf-8"))
    generator = ctranslate2.Generator(
        directory, compute_type="int8_float32", inter_threads=1, intra_threads=threads
    )
    print("ready", flush=True)
    for line in sys.stdin:
        batch, prompt, new = map(int, line.split())
        print(generate(generator, vocabulary, batch, prompt, new), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
