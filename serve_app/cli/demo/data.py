"""`moss demo-data`: writes everything the demo model is trained from."""

from pathlib import Path

import click

from serve_app.cli.options import with_options

_VAL_SEED_OFFSET = 1

_OPTIONS = (
    click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write."),
    click.option("--num", default=100_000, show_default=True, type=click.IntRange(1)),
    click.option("--num-val", default=500, show_default=True, type=click.IntRange(1)),
    click.option("--seed", default=0, show_default=True),
    click.option(
        "--short-share",
        default=0.0,
        show_default=True,
        type=click.FloatRange(0, 1),
        help="Share of short chats, from which a model learns to copy first.",
    ),
    click.option(
        "--tokenizer-num",
        default=20_000,
        show_default=True,
        type=click.IntRange(1),
        help="Conversations that the untrained model's tokenizer is trained on.",
    ),
)


@click.command(name="demo-data")
@with_options(*_OPTIONS)
def command(
    out: Path, num: int, num_val: int, seed: int, short_share: float, tokenizer_num: int
) -> None:
    """Write OUT/train.jsonl, OUT/val.jsonl and OUT/model, the untrained demo model.

    None of them may be there already. val.jsonl holds values that train.jsonl never shows.
    Train with `moss finetune --model OUT/model --data-dir OUT --output-dir …`.
    """
    from serve_app.cli.directory import new_entries
    from serve_app.demo.conversations.generator import conversations, write_conversations
    from serve_app.demo.nano import write_untrained_nano

    with new_entries(out, ("train.jsonl", "val.jsonl", "model")) as new:
        write_conversations(new / "train.jsonl", num, seed, short_share=short_share)
        write_conversations(new / "val.jsonl", num_val, seed + _VAL_SEED_OFFSET, held_out=True)
        write_untrained_nano(new / "model", conversations(min(num, tokenizer_num), seed), seed)
    click.echo(f"{num} conversations, {num_val} held out, and an untrained model in {out}")


if __name__ == "__main__":
    command()
