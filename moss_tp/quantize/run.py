"""A whole quantization: block after block, then the measurement, then the model gets its name."""

from typing import Any

import torch

from moss_tp.errors import CheckpointError
from moss_tp.json_file import read_json
from moss_tp.quantize.export import write_rest
from moss_tp.quantize.output import MANIFEST, REPORT, Output
from moss_tp.quantize.passage import Passage
from moss_tp.quantize.report import Progress
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.quantize.source import Source
from moss_tp.quantize.space import check_space
from moss_tp.quantize.text import Sequences, digest, read_sequences
from moss_tp.tokenizer import Tokenizer
from moss_tp.weights.digest import weights_digest


@torch.inference_mode()
def quantize_model(settings: QuantizeSettings, *, is_shown: bool = True) -> dict[str, Any]:
    """Writes the model to `settings.destination` and returns its report. Goes on where a run with
    the same settings was killed. `is_shown`: with a progress bar.

    Raises ConfigError, CheckpointError or ConversationError for what cannot work, before the first
    block where possible.
    """
    with Source(settings.model) as source:
        settings.check_model(source.config)
        sequences = _sequences(settings, source)
        output, manifest = Output(settings.destination), _manifest(settings, sequences)
        with output.taken(manifest):
            if not output.is_whole:
                passage = Passage(settings, source, sequences, output)
                check_space(settings, source, output, passage.num_bytes)
                _make(passage, manifest, is_shown)
            report = read_json(output.model / REPORT)
            output.finish()
    return report


def _make(passage: Passage, manifest: dict[str, Any], is_shown: bool) -> None:
    """Everything but the name; the report is written last."""
    output, source = passage.output, passage.source
    progress = Progress(passage.num_steps, passage.num_done, is_shown=is_shown)
    try:
        passage.say_sequences(progress)
        passage.blocks(progress)
        write_rest(output, source, passage.settings)
        output.write_json(MANIFEST, manifest)
        output.write_json(REPORT, passage.report())
    finally:
        progress.close()


def _sequences(settings: QuantizeSettings, source: Source) -> Sequences:
    tokenizer = Tokenizer.from_dir(settings.model)
    if tokenizer.vocab_size > source.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {settings.model} has {tokenizer.vocab_size} tokens, the model only "
            f"{source.config.vocab_size}"
        )
    return read_sequences(settings, tokenizer, source.config.max_position_embeddings)


def _manifest(settings: QuantizeSettings, sequences: Sequences) -> dict[str, Any]:
    """All that the result depends on; its order of summation aside, which is the machine's."""
    return {
        "made_by": "moss quantize",
        "source_digest": weights_digest(settings.model),
        "calibration_digest": digest(sequences.calibration),
        "held_out_digest": digest(sequences.held_out),
        **settings.written,
    }
