"""Decode with weights of 4 and 8 bits beside CTranslate2 with int8 weights, in alternation.

MODEL is a CodeGen checkpoint, such as docs/performance.md describes. CTranslate2 gets its weights;
our engine gets random ones of the same shapes, in GPTQ's layout. Every engine stays loaded; a
repeat measures one after the other. A step's time is that of 65 new tokens less that of one, over
64. Prints a Markdown table: medians, the fastest step, and the median of the repeats' ratios with
its extremes.

    python -m venv DIR && DIR/bin/pip install ctranslate2==4.8.5
    python -m tests.foreign.compare_ctranslate2 DIR/bin/python MODEL [BATCH [REPEATS]]
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from moss_tp import LLM, SamplingParams

RUNNER = Path(__file__).with_name("run_ctranslate2.py")
THREADS, PROMPT, NEW = 2, 128, 64
THEIRS = "CTranslate2, int8"
Generate = Callable[[int], float]  # so many new tokens; seconds

# With the project's transformers and torch: CTranslate2's own environment has neither.
CONVERT = """
import sys
sys.path.append(sys.argv[1])
from ctranslate2.converters import TransformersConverter
TransformersConverter(sys.argv[2]).convert(sys.argv[3], quantization="int8_float32")
"""
OURS: dict[str, dict[str, Any]] = {
    "int4, LM head int8": {"wbits": 4, "lm_head_bits": 8},
    "int4": {"wbits": 4, "lm_head_bits": None},
    "int8, LM head int8": {"wbits": 8, "lm_head_bits": 8},
}


def main(python: str, model: Path, batch: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        converted = convert(python, model, Path(folder, "converted"))
        engines = {THEIRS: stack.enter_context(their_engine(python, converted, batch))}
        for name, kind in OURS.items():
            directory = write_config(model, Path(folder, name), kind["wbits"])
            engines[name] = stack.enter_context(our_engine(directory, batch, kind["lm_head_bits"]))
        steps: dict[str, list[float]] = {name: [] for name in engines}
        for generate in engines.values():
            generate(NEW)  # warm-up
        for _ in range(repeats):
            for name, generate in engines.items():
                steps[name].append(1e3 * (generate(NEW + 1) - generate(1)) / NEW)
    show(steps, batch)


def show(steps: dict[str, list[float]], batch: int) -> None:
    print(f"| batch {batch} | step, ms | fastest | speed, of CTranslate2's | extremes |")
    print("|---|---|---|---|---|")
    for name, times in steps.items():
        ratios = [theirs / ours for theirs, ours in zip(steps[THEIRS], times, strict=True)]
        extremes = f"{min(ratios):.2f} to {max(ratios):.2f}"
        step = f"{median(times):.2f} | {min(times):.2f}"
        print(f"| {name} | {step} | {median(ratios):.2f} | {extremes} |")


def convert(python: str, model: Path, target: Path) -> Path:
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True)
    site = packages.stdout.strip()
    subprocess.run([sys.executable, "-c", CONVERT, site, str(model), str(target)], check=True)
    return target


def write_config(model: Path, directory: Path, bits: int) -> Path:
    """All that random weights need."""
    directory.mkdir()
    fields = json.loads((model / "config.json").read_text("utf-8"))
    fields |= {"wbits": bits, "groupsize": 128}
    (directory / "config.json").write_text(json.dumps(fields))
    return directory


@contextmanager
def their_engine(python: str, directory: Path, batch: int) -> Iterator[Generate]:
    command = [python, str(RUNNER), str(directory), str(THREADS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    told, answers = process.stdin, process.stdout

    def generate(new: int) -> float:
        told.write(f"{batch} {PROMPT} {new}\n")
        told.flush()
        return float(answers.readline())

    try:
        if answers.readline().strip() != "ready":
            sys.exit("CTranslate2 does not start")
        yield generate
    finally:
        told.close()
        process.wait()


@contextmanager
def our_engine(directory: Path, batch: int, lm_head_bits: int | None) -> Iterator[Generate]:
    with LLM(
        str(directory),
        num_threads=THREADS,
        max_model_len=512,
        kv_cache_bytes=1 << 29,
        num_speculative_tokens=0,
        load_format="dummy",
        lm_head_bits=lm_head_bits,
    ) as llm:
        vocab_size = json.loads((directory / "config.json").read_text())["vocab_size"]

        def generate(new: int) -> float:
            prompts = [random.choices(range(vocab_size), k=PROMPT) for _ in range(batch)]
            params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)
            start = time.perf_counter()
            llm.generate(prompts, params)
            return time.perf_counter() - start

        yield generate


if __name__ == "__main__":
    numbers = dict(enumerate(map(int, sys.argv[3:])))
    main(sys.argv[1], Path(sys.argv[2]), numbers.get(0, 1), numbers.get(1, 9))
