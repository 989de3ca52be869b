"""Writes small checkpoints that GPTQModel has quantized, with the logits that it computes.

It needs GPTQModel 7.7, whose torch is newer than the project's, so it runs in an environment of its
own and imports nothing of the project. Each folder that it writes has the model's files and
`logits.npy`, those of IDS in fp32; `tests/moss_tp/weights/test_gptqmodel.py` reads them:

    GPTQMODEL_CPU_WORKERS=2 python tests/foreign/write_gptqmodel.py [KIND ...]
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CodeGenConfig, CodeGenForCausalLM, PreTrainedTokenizerFast

FIXTURES = Path(__file__).parents[1] / "moss_tp/weights/gptqmodel"
VOCAB = 64
IDS = [(7 * i * i + 3) % VOCAB for i in range(24)]
KEPT = ("config.json", "quantize_config.json", "model.safetensors")

KINDS: dict[str, dict[str, Any]] = {
    "int4": {"bits": 4, "group_size": 32, "sym": True, "desc_act": False},
    "int4_act_order": {"bits": 4, "group_size": 32, "sym": False, "desc_act": True},
    "int4_borrow": {"bits": 4, "group_size": 32, "sym": False, "desc_act": True},
    "int4_v2": {"bits": 4, "group_size": 16, "sym": False, "desc_act": True, "format": "gptq_v2"},
    "int8": {
        "bits": 8,
        "group_size": -1,
        "sym": True,
        "desc_act": False,
        "act_group_aware": False,  # which needs groups
    },
    "int8_v2": {"bits": 8, "group_size": 32, "sym": False, "desc_act": True, "format": "gptq_v2"},
    "int4_rules": {
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "desc_act": False,
        "dynamic": {r"-:.*out_proj": {}, r"+:.*fc_in": {"bits": 8}},
    },
}
# Every fourth output has only positive weights, so zero points of 0.
POSITIVE = ("int4_borrow",)


def write_base(directory: Path, *, has_positive: bool) -> None:
    """A random model of one layer, and a tokenizer of one word an id."""
    torch.manual_seed(0)
    config = CodeGenConfig(
        vocab_size=VOCAB,
        n_positions=64,
        n_ctx=64,
        n_embd=64,
        n_layer=1,
        n_head=4,
        rotary_dim=8,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = CodeGenForCausalLM(config).half()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = 2 / parameter.shape[-1] ** 0.5 if parameter.ndim == 2 else 0.3
            parameter.normal_(0, 1 if "wte" in name else std)
            if ".ln_" in name and name.endswith("weight"):
                parameter.add_(1)
            if has_positive and name.endswith("fc_in.weight"):
                parameter[::4].abs_()
    model.save_pretrained(directory)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCAB)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w1", unk_token="w0"
    )
    fast.save_pretrained(directory)


def calibration() -> list[dict[str, list[int]]]:
    numbers = np.random.default_rng(0)
    rows = numbers.integers(0, VOCAB, (64, 48)).tolist()
    return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]


def write_kind(name: str, settings: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as base:
        write_base(Path(base), has_positive=name in POSITIVE)
        model = GPTQModel.load(base, QuantizeConfig(**settings, device="cpu"))
        model.quantize(calibration(), batch_size=8, backend=BACKEND.TORCH)
        model.save(folder)
        logits = logits_of(folder)
        target = FIXTURES / name
        target.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            if (Path(folder) / file).exists():
                shutil.copy(Path(folder) / file, target)
                drop_temporary_paths(target / file)
        np.save(target / "logits.npy", logits)


def drop_temporary_paths(file: Path) -> None:
    """Of the machine on which it was written."""
    if file.suffix == ".json":
        lines = file.read_text("utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if "_to_disk_path" not in line), "utf-8")


def logits_of(folder: str) -> "np.ndarray[Any, Any]":
    """fp32, by GPTQModel's own torch kernel."""
    loaded = GPTQModel.load(folder, backend=BACKEND.TORCH, device="cpu", dtype=torch.float16)
    with torch.no_grad():
        logits = loaded.model.float()(torch.tensor([IDS])).logits[0].float().numpy()
    return np.asarray(logits)


if __name__ == "__main__":
    for kind in sys.argv[1:] or KINDS:
        write_kind(kind, KINDS[kind])
        print("wrote", kind, flush=True)
