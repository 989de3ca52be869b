"""`moss quantize` beside GPTQModel on the bundled model: the same text, one measurement.

Prints a Markdown table: the mean KL divergence from the unquantized model, in fp32, on held-out
conversations, and its ratios.

    python -m venv DIR && DIR/bin/pip install gptqmodel==7.7.0
    python -m tests.foreign.compare_gptqmodel DIR/bin/python
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from moss_tp.config import ModelConfig
from moss_tp.fidelity.scored_model import Variant
from moss_tp.quantize.run import quantize_model
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.quantize.text import read_sequences
from moss_tp.tokenizer import Tokenizer
from serve_app.bench.quality import TextSpec, measure_quality
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.demo.conversations.generator import write_conversations

QUANTIZER = Path(__file__).with_name("quantize_gptqmodel.py")
NUM_TRAIN, NUM_HELD_OUT, THREADS = 600, 64, 2


@dataclass(frozen=True)
class Kind:
    bits: int
    group_size: int
    act_order: bool = False
    sym: bool = False

    @property
    def title(self) -> str:
        marks = ", act-order" * self.act_order + ", symmetric" * self.sym
        return f"{self.bits} bits, groups of {self.group_size}{marks}"

    @property
    def gptqmodel(self) -> dict[str, object]:
        """Its own additions to GPTQ stay at their defaults."""
        fields: dict[str, object] = {"bits": self.bits, "group_size": self.group_size}
        fields |= {"desc_act": self.act_order, "sym": self.sym, "format": "gptq_v2"}
        # Its reordering of groups is only for weights without act-order.
        return fields | ({"act_group_aware": False} if self.act_order else {})


KINDS = (
    Kind(4, 64),
    Kind(4, 64, act_order=True),
    Kind(4, 64, sym=True),
    Kind(4, 128),
    Kind(4, 128, act_order=True),
    Kind(8, 128),
)


def main(python: str) -> None:
    print("| | nearest | gptqmodel | ours | gptqmodel / nearest | ours / nearest | ours / theirs |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_conversations(Path(folder, "train.jsonl"), NUM_TRAIN, 0)
        write_conversations(Path(folder, "val.jsonl"), 500, 1, held_out=True)
        for number, kind in enumerate(KINDS):
            print(row(kind, python, Path(folder), str(number)), flush=True)


def row(kind: Kind, python: str, folder: Path, name: str) -> str:
    settings = QuantizeSettings(
        model=BUNDLED_MODEL,
        destination=folder / f"ours{name}",
        calibration=folder / "train.jsonl",
        evaluate=folder / "val.jsonl",
        held_out=NUM_HELD_OUT,
        dtype="float32",
        **vars(kind),
    )
    nearest: float = quantize_model(settings, is_shown=False)["nearest"]["kl"]
    theirs = run_gptqmodel(kind, python, settings, folder / f"theirs{name}")
    text = TextSpec(folder / "val.jsonl", NUM_HELD_OUT, settings.length, settings.seed)
    others = {"ours": settings.destination, "theirs": theirs}
    found = measure_quality(
        Variant(BUNDLED_MODEL, "float32"),
        {key: Variant(directory, "float32") for key, directory in others.items()},
        text,
        THREADS,
        lambda num_tokens: None,
    ).fidelities
    our, their = found["ours"].kl, found["theirs"].kl
    kls = " | ".join(f"{kl:.6f}" for kl in (nearest, their, our))
    ratios = " | ".join(f"{ratio:.2f}" for ratio in (their / nearest, our / nearest, our / their))
    return f"| {kind.title} | {kls} | {ratios} |"


def run_gptqmodel(kind: Kind, python: str, settings: QuantizeSettings, destination: Path) -> Path:
    """On the sequences that `moss quantize` calibrates with."""
    tokenizer, config = Tokenizer.from_dir(settings.model), ModelConfig.from_dir(settings.model)
    sequences = read_sequences(settings, tokenizer, config.max_position_embeddings)
    ids, fields = settings.destination.with_suffix(".ids"), destination.with_suffix(".json")
    ids.write_text(json.dumps(sequences.calibration))
    fields.write_text(json.dumps(kind.gptqmodel))
    command = [
        str(Path(python).absolute()),
        str(QUANTIZER),
        str(settings.model),
        str(ids),
        str(destination),
        str(fields),
    ]
    log = destination.with_suffix(".log")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            cwd=destination.parent,  # it writes logs into it
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "GPTQMODEL_CPU_WORKERS": "2"},
        )
    if done.returncode:
        sys.exit(f"GPTQModel failed:\n{log.read_text('utf-8', 'replace')[-3000:]}")
    return destination


if __name__ == "__main__":
    main(sys.argv[1])
