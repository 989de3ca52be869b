"""`moss shard`: the command is `moss_tp.sharding`'s own."""

from moss_tp.sharding.command import command

__all__ = ["command"]
