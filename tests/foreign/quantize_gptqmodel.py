"""Quantizes a model with GPTQModel, on token ids that are given.

It runs in GPTQModel's own environment and imports nothing of the project:

    python tests/foreign/quantize_gptqmodel.py MODEL IDS.json DESTINATION SETTINGS.json
"""

import json
import sys
from pathlib import Path

from gptqmodel import BACKEND, GPTQModel, QuantizeConfig


def quantize(source: str, ids: Path, destination: str, settings: Path) -> None:
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in read(ids)]
    model = GPTQModel.load(source, QuantizeConfig(**json.loads(settings.read_text()), device="cpu"))
    # One sequence at a time: padding would be calibrated with, too.
    model.quantize(rows, batch_size=1, backend=BACKEND.TORCH)
    model.save(destination)


def read(file: Path) -> list[list[int]]:
    rows: list[list[int]] = json.loads(file.read_text())
    return rows


if __name__ == "__main__":
    quantize(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
