"""`accelerate launch -m moss_tp.finetune …`."""

from moss_tp.finetune.command import command

command()
