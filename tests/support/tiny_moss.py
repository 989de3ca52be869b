"""Small random MOSS checkpoints on disk, in the published names, layout and file formats.

The weights have the names and shapes of transformers' CodeGenForCausalLM, which is also the
reference that loads them back; nothing of moss_tp is involved.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import CodeGenConfig, CodeGenForCausalLM

SPECIAL_TOKENS = ("<|endoftext|>", "<eoc>", "<eor>", "<eom>", "<eot>", "<eoh>")
# 256 bytes, 10 merges, the special tokens, then ids that no text produces.
MERGES = ("Ġ t", "h e", "Ġt he", "e r", "i n", "å ¥", "ä ½", "ä½ ł", "å¥ ½", "ä½ł å¥½")
TEXT_TOKENS = 256 + len(MERGES)
BOS_ID = TEXT_TOKENS
EOS_ID = TEXT_TOKENS + SPECIAL_TOKENS.index("<eom>")
# Prime: no tensor-parallel size divides it.
VOCAB_SIZE = 277


def make_checkpoint(
    directory: Path,
    *,
    heads: int = 4,
    head_dim: int = 16,
    layers: int = 2,
    rotary_dim: int = 8,
    inner: int | None = None,
    vocab_size: int = VOCAB_SIZE,
    positions: int = 256,
    format: Literal["safetensors", "bin"] = "safetensors",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Writes a model directory with a working tokenizer; returns `directory`.

    The weights come in two shards with an index, with the buffers that published CodeGen
    checkpoints have. Their variance is large, so that logits differ and greedy tokens vary.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "n_positions": positions,
        "n_ctx": positions,
        "n_embd": heads * head_dim,
        "n_layer": layers,
        "n_head": heads,
        "n_inner": inner,
        "rotary_dim": rotary_dim,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "tie_word_embeddings": False,
    }
    published = {"architectures": ["MossForCausalLM"], "model_type": "moss", "wbits": 32}
    _write_json(directory / "config.json", {**published, "groupsize": 128, **fields})
    _write_weights(directory, _random_weights(CodeGenConfig(**fields), dtype, seed), format)
    write_tokenizer(directory)
    return directory


def write_tokenizer(directory: Path) -> None:
    """Writes a byte-level BPE with MOSS's special tokens as `tokenizer.json`."""
    _build_tokenizer().save(str(directory / "tokenizer.json"))


def write_vocab_files(directory: Path) -> None:
    """Writes the same tokenizer in the files that MOSS was published with."""
    fields = json.loads(_build_tokenizer().to_str())
    _write_json(directory / "vocab.json", fields["model"]["vocab"])
    merges = "\n".join(("#version: 0.2", *MERGES))
    (directory / "merges.txt").write_text(merges + "\n", encoding="utf-8")
    added = {token["content"]: token["id"] for token in fields["added_tokens"]}
    _write_json(directory / "added_tokens.json", added)


def load_oracle(directory: Path) -> CodeGenForCausalLM:
    """transformers' CodeGen model of `directory`, in fp32 and with eager attention."""
    fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    fields["architectures"], fields["model_type"] = ["CodeGenForCausalLM"], "codegen"
    model: CodeGenForCausalLM = CodeGenForCausalLM.from_pretrained(
        directory,
        config=CodeGenConfig(**fields),
        dtype=torch.float32,
        attn_implementation="eager",
    )
    model.train(False)
    return model


def _random_weights(config: CodeGenConfig, dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """Normal random values for every parameter. Biases and norms too: a zero bias would hide a bias
    that is added on every rank."""
    names = CodeGenForCausalLM(config).state_dict()
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in ((name, tensor.shape) for name, tensor in names.items()):
        noise = torch.randn(shape, generator=generator)
        is_norm = ".ln_" in name and name.endswith("weight")
        scale = 2 / shape[-1] ** 0.5 if len(shape) == 2 else 0.3
        weights[name] = (noise * scale + is_norm).to(dtype)
    # The scale above is for matrices that multiply a hidden state; embeddings have unit variance.
    weights["transformer.wte.weight"] *= config.n_embd**0.5
    return weights


def _write_weights(directory: Path, weights: dict[str, Tensor], format: str) -> None:
    num_layers = sum(name.endswith("qkv_proj.weight") for name in weights)
    buffers = {
        f"transformer.h.{layer}.attn.causal_mask": torch.ones(1, 1, 8, 8, dtype=torch.bool)
        for layer in range(num_layers)
    }
    names = sorted(weights)
    shards = [
        {name: weights[name] for name in names[::2]},
        {name: weights[name] for name in names[1::2]} | buffers,
    ]
    stem, suffix = ("model", "safetensors") if format == "safetensors" else ("pytorch_model", "bin")
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.{suffix}"
        weight_map |= dict.fromkeys(shard, file)
        if format == "safetensors":
            save_file(shard, directory / file)
        else:
            torch.save(shard, directory / file)
    total_size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    _write_json(directory / f"{stem}.{suffix}.index.json", index)


def _build_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(left, right) for left, right in (merge.split() for merge in MERGES)]
    tokens = [*alphabet, *(left + right for left, right in merges)]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
