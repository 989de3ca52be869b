"""`moss finetune`: the command is `moss_tp.finetune`'s own."""

from moss_tp.finetune.command import command

__all__ = ["command"]
