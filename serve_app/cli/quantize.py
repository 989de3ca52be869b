"""`moss quantize`: the command is `moss_tp.quantize`'s own."""

from moss_tp.quantize.command import command

__all__ = ["command"]
