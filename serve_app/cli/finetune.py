"""`moss finetune`: the library's own command."""

from moss_tp.finetune.command import command

__all__ = ["command"]
