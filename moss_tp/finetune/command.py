"""The fine-tuning command line: one flag per setting; MOSS's flag names work too."""

import logging
from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(path_type=Path)


@click.command(name="finetune")
@click.option(
    "--model",
    "--model_name_or_path",
    required=True,
    help="Model directory or hub id to start from.",
)
@click.option(
    "--data-dir",
    "--data_dir",
    required=True,
    type=_FOLDER,
    help="Folder with train.jsonl and, for the eval loss, val.jsonl.",
)
@click.option(
    "--output-dir",
    "--output_dir",
    required=True,
    type=_FOLDER,
    help="The model is saved to OUTPUT_DIR/model, the state to resume from to OUTPUT_DIR/state. "
    "What this run did not make is never overwritten or removed.",
)
@click.option(
    "--log-dir", "--log_dir", type=_FOLDER, help="Folder of train_log.jsonl; by default OUTPUT_DIR."
)
@click.option("--epochs", "--n_epochs", default=2, show_default=True)
@click.option(
    "--batch-size",
    "--train_bsz_per_gpu",
    default=4,
    show_default=True,
    help="Conversations per process and forward pass.",
)
@click.option("--eval-batch-size", "--eval_bsz_per_gpu", default=4, show_default=True)
@click.option("--gradient-accumulation", default=1, show_default=True)
@click.option("--learning-rate", "--learning_rate", default=9e-6, show_default=True)
@click.option(
    "--warmup-rate",
    "--warmup_rates",
    default=0.05,
    show_default=True,
    help="Fraction of all steps.",
)
@click.option("--weight-decay", "--weight_decay", default=0.1, show_default=True)
@click.option("--adam-beta2", default=0.999, show_default=True)
@click.option("--max-grad-norm", default=1.0, show_default=True)
@click.option(
    "--max-seq-len", "--max_seq_len", default=2048, show_default=True,
    help="Maximum tokens per conversation, capped at the model's positions.",
)  # fmt: skip
@click.option("--max-steps", type=int, help="Stop after this many optimizer steps.")
@click.option("--save-step", "--save_step", default=3000, show_default=True)
@click.option("--eval-step", "--eval_step", default=1000, show_default=True)
@click.option("--log-step", default=10, show_default=True)
@click.option("--seed", default=42, show_default=True)
@click.option(
    "--mixed-precision", default="no", show_default=True, type=click.Choice(["no", "fp16", "bf16"])
)
@click.option(
    "--export-dtype",
    default="bfloat16",
    show_default=True,
    type=click.Choice(["bfloat16", "float16", "float32"]),
)
@click.option("--gradient-checkpointing", is_flag=True)
@click.option("--mask-human", is_flag=True, help="No loss on user messages (MOSS trains on them).")
@click.option(
    "--served-history",
    is_flag=True,
    help="Set the Results of earlier turns to None, as serving does.",
)
@click.option("--resume", is_flag=True, help="Continue from the last whole state in OUTPUT_DIR.")
def command(model: str, **options: Any) -> None:
    """Fine-tune MOSS on conversations in its published JSON format.

    The loss is off on the meta instruction and on Results. On several GPUs run `accelerate launch
    -m moss_tp.finetune …` with the same flags.
    """
    from moss_tp.config import resolve_model
    from moss_tp.errors import MossError
    from moss_tp.finetune.settings import FinetuneSettings
    from moss_tp.finetune.trainer import finetune

    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        progress = finetune(FinetuneSettings(model=resolve_model(model), **options))
    except MossError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{progress.step} steps done; model in {options['output_dir'] / 'model'}")
