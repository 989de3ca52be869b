"""A machine without Triton serves on its CPU, and says what is missing for a GPU."""

import subprocess
import sys
from pathlib import Path

from tests.support.tiny_moss import make_checkpoint

WITHOUT = """
import sys

class NoTriton:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "triton":
            raise ImportError("there is no triton")

sys.meta_path.insert(0, NoTriton())
"""
CPU = """
from moss_tp import LLM, SamplingParams
import serve_app.cli.serve.command, serve_app.cli.bench.command, serve_app.deployments.model

with LLM(sys.argv[1], tp_size=1, device="cpu", dtype="float32") as llm:
    (reply,) = llm.generate([[5, 6, 7]], SamplingParams(max_tokens=4, ignore_eos=True))
print(len(reply.token_ids))
"""
CUDA = """
from moss_tp.kernels import choose_kernels
from moss_tp.errors import ConfigError
import torch

try:
    choose_kernels("cuda", torch.float16, 64)
except ConfigError as error:
    print(error)
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_cpu_needs_none(tmp_path: Path) -> None:
    assert run(CPU, str(make_checkpoint(tmp_path / "model"))) == "4"


def test_a_gpu_needs_it() -> None:
    assert run(CUDA) == "the CUDA kernels need Triton: there is no triton"
