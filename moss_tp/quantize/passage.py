"""The way of the sequences through the blocks, and what becomes of each block on the way.

calibration   through the quantized blocks: so a block makes up for the errors before it, too
source        held-out text through the blocks as they are,
nearest       through blocks rounded to nearest,
quantized     through the quantized ones: what is measured
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moss_tp.finetune.durable import write_json
from moss_tp.json_file import read_json
from moss_tp.kernels.rotary import Rotary
from moss_tp.quantize.activations import Rows
from moss_tp.quantize.block import LINEARS, Block
from moss_tp.quantize.block_quantizer import STAGES, BlockQuantizer, QuantizedBlock
from moss_tp.quantize.comparison import Head, compare
from moss_tp.quantize.export import write_block
from moss_tp.quantize.output import Output
from moss_tp.quantize.report import NEAREST, QUANTIZED, SOURCE, Progress, report_fields
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.quantize.source import Source
from moss_tp.quantize.text import Ids, Sequences

CALIBRATION = "calibration"
_STEPS = len(STAGES) + 1  # of a block
_DAMPINGS = "dampings.json"


class Passage:
    """One run's, in an `output` that is taken."""

    def __init__(
        self, settings: QuantizeSettings, source: Source, sequences: Sequences, output: Output
    ) -> None:
        self.settings, self.source, self.output = settings, source, output
        self._sequences = sequences
        self._device, self._dtype = torch.device(settings.device), getattr(torch, settings.dtype)
        config = source.config
        self._rotary = Rotary.make(config.rotary_dim, config.max_position_embeddings, self._device)
        held_out = self._rows(sequences.held_out)
        self._streams = {CALIBRATION: self._rows(sequences.calibration)}
        self._streams |= dict.fromkeys((SOURCE, NEAREST, QUANTIZED), held_out)

    def _rows(self, sequences: tuple[Ids, ...]) -> Rows:
        lengths = tuple(map(len, sequences))
        return Rows(lengths, self.source.config.hidden_size, self._dtype)

    @property
    def num_bytes(self) -> int:
        """Of the activations between two blocks."""
        return sum(rows.num_bytes for rows in self._streams.values())

    @property
    def num_steps(self) -> int:
        return _STEPS * self.source.config.num_layers

    @property
    def num_done(self) -> int:
        """Of the steps, by an earlier run."""
        return _STEPS * (self.output.layer() or 0)

    def say_sequences(self, progress: Progress) -> None:
        calibration, held_out = self._sequences.calibration, self._sequences.held_out
        progress.say(
            f"{len(calibration)} sequences, {sum(map(len, calibration)):,} tokens, to calibrate; "
            f"{len(held_out)}, {sum(map(len, held_out)):,} tokens, to measure"
        )

    def blocks(self, progress: Progress) -> None:
        """Quantizes and writes those that are left."""
        if self.output.layer() is None:
            self._embed()
        for layer in range(self.output.layer() or 0, self.source.config.num_layers):
            self._block(layer, progress)

    def _embed(self) -> None:
        table = self.source.read("transformer.wte.weight")
        ids = dict.fromkeys(self._streams, self._sequences.held_out)
        ids[CALIBRATION] = self._sequences.calibration
        with self.output.new_activations(0) as new:
            for stream, rows in self._streams.items():
                rows.write(
                    new / stream, (_embedded(table, one, self._dtype) for one in ids[stream])
                )
            write_json(new / _DAMPINGS, {})

    def _block(self, layer: int, progress: Progress) -> None:
        block = self.source.block(layer, self._rotary, self._dtype, self._device)
        weight = partial(self.source.weight, layer, device=self._device)
        inputs = partial(self._inputs, layer, CALIBRATION)
        done = BlockQuantizer(self.settings, block, weight, inputs, progress.advance).run()
        replaced = {f"{linear}.weight" for linear in LINEARS}
        write_block(self.output, self.source, layer, done.tensors, replaced, self.settings)
        self._pass_on(layer, block, done, self._raised(layer, done, progress))
        progress.advance()

    def _pass_on(
        self, layer: int, block: Block, done: QuantizedBlock, dampings: dict[str, float]
    ) -> None:
        """Writes what the next block reads."""
        blocks = {SOURCE: block, NEAREST: done.nearest}
        with self.output.new_activations(layer + 1) as new:
            for stream, rows in self._streams.items():
                through = blocks.get(stream, done.quantized)
                rows.write(new / stream, map(through, self._inputs(layer, stream)))
            write_json(new / _DAMPINGS, dampings)

    def _raised(self, layer: int, done: QuantizedBlock, progress: Progress) -> dict[str, float]:
        """The dampings that had to be raised, up to this block."""
        raised: dict[str, float] = read_json(self.output.activations(layer) / _DAMPINGS)
        for linear, damping in done.dampings.items():
            if damping != self.settings.damping:
                raised[f"h.{layer}.{linear}"] = damping
                progress.say(
                    f"the Hessian of h.{layer}.{linear} is not positive definite: its damping is "
                    f"raised to {damping:g}"
                )
        return raised

    def _inputs(self, layer: int, stream: str) -> Iterator[Tensor]:
        return self._streams[stream].read(self.output.activations(layer) / stream, self._device)

    def report(self) -> dict[str, Any]:
        """Of the held-out text, after the last block."""
        layer = self.source.config.num_layers
        hidden = {stream: partial(self._inputs, layer, stream) for stream in self._streams}
        del hidden[CALIBRATION]
        targets = [torch.tensor(ids, device=self._device) for ids in self._sequences.held_out]
        fidelities = compare(self._head(), hidden.pop(SOURCE), hidden, targets)
        num_tokens = sum(self._streams[SOURCE].lengths)
        dampings = read_json(self.output.activations(layer) / _DAMPINGS)
        return report_fields(fidelities, num_tokens, dampings)

    def _head(self) -> Head:
        names = ("transformer.ln_f.weight", "transformer.ln_f.bias", "lm_head.weight")
        tensors = [
            self.source.read(name).to(self._device, self._dtype)
            for name in (*names, "lm_head.bias")
        ]
        return Head((tensors[0], tensors[1]), self.source.config.layer_norm_eps, *tensors[2:])


def _embedded(table: Tensor, ids: Ids, dtype: torch.dtype) -> Tensor:
    return F.embedding(torch.tensor(ids), table).to(dtype)
