"""A tiny random model that generates letters forever: only its context or the client ends it."""

import json
from pathlib import Path
from string import ascii_lowercase

import torch
from safetensors.torch import load_file, save_file

from moss_tp.tokenizer import Tokenizer
from tests.support.tiny_moss import make_checkpoint

BIAS = "lm_head.bias"


def make_endless_model(directory: Path) -> Path:
    """Writes the model, with a short meta instruction; returns `directory`."""
    make_checkpoint(directory, positions=16384)
    index = json.loads((directory / "model.safetensors.index.json").read_text("utf-8"))
    shard = directory / index["weight_map"][BIAS]
    tensors = load_file(shard)
    letters = [Tokenizer.from_dir(directory).encode(letter)[0] for letter in ascii_lowercase]
    bias = torch.full_like(tensors[BIAS], -1e4)
    bias[letters] = 0
    save_file({**tensors, BIAS: bias}, shard)
    (directory / "meta_instruction.txt").write_text("You are MOSS.\n", "utf-8")
    return directory
