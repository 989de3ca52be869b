"""`moss export`: writes the chats of a store as conversations that `moss finetune` reads.

One chat at a time is in memory. uids are not written: whoever has one could continue the chat.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import click

from moss_tp.config import resolve_model
from moss_tp.errors import ConfigError
from serve_app.cli.directory import new_entries
from serve_app.cli.options import with_options
from serve_app.cli.stored.location import located_store, store_options
from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.prompt.meta_instruction import load_meta_instruction
from serve_app.prompt.published import published_conversation
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import Session, Turn

TRAIN, VAL = "train.jsonl", "val.jsonl"

_OPTIONS = with_options(
    click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write."),
    click.option(
        "--owner",
        help="Only the chats of that owner: a key's, demo for callers without keys, or page-….",
    ),
    click.option("--liked", is_flag=True, help="Only chats with liked turns, up to the last one."),
    click.option(
        "--val-share",
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        help="Share of chats that go into val.jsonl instead.",
    ),
    click.option(
        "--model",
        default=str(BUNDLED_MODEL),
        help="Model that replied, for its meta instruction. Default: demo.",
    ),
)


@click.command()
@_OPTIONS
@store_options
def command(
    out: Path,
    owner: str | None,
    liked: bool,
    val_share: float,
    model: str,
    store: str,
    data_dir: Path,
) -> None:
    """Write the store's chats to OUT/train.jsonl, beside a running server or without one.

    A chat is its active path, and ends before a reply that was cut off or is disliked. Where there
    is nothing to write, nothing is written.
    Train with `moss finetune --data-dir OUT …`.
    """
    directory = resolve_model(model, with_weights=False)
    writer = Writer(load_meta_instruction(directory), liked, val_share)
    names = (TRAIN, VAL) if val_share else (TRAIN,)
    with (
        located_store(store, data_dir) as url,
        new_entries(out, names) as new,
        ExitStack() as files,
    ):
        writer.files = [files.enter_context((new / n).open("w", encoding="utf-8")) for n in names]
        asyncio.run(_write_all(writer, url, owner))
        if not writer.num_written:
            raise ConfigError(_why_none(writer.num_left_out, owner, liked))
    click.echo(f"{writer.num_written} chats in {out}, {writer.num_left_out} left out", err=True)


def _why_none(num_left_out: int, owner: str | None, liked: bool) -> str:
    """Why an export has nothing to write."""
    whose = "" if owner is None else f" of {owner!r}"
    if num_left_out:
        what = "has a liked turn to end with" if liked else "begins with a reply to learn from"
        return f"none of the {num_left_out} chats{whose} {what}: nothing was written"
    hint = "" if owner is None else "; moss keys list shows owners, callers without keys are 'demo'"
    return f"the store has no chats{whose}: nothing was written{hint}"


async def _write_all(writer: "Writer", url: str, owner: str | None) -> None:
    catalogue = RedisSessionCatalogue(url)
    try:
        async for session in catalogue.sessions(owner):
            writer.write(session)
    finally:
        await catalogue.close()


class Writer:
    """Writes sessions to `files`: the training file, and the one of a held-out `val_share`."""

    def __init__(self, meta_instruction: str, only_liked: bool, val_share: float) -> None:
        self._meta_instruction = meta_instruction
        self._only_liked = only_liked
        self._val_share = val_share
        self.files: Sequence[TextIO] = ()
        self.num_written = self.num_left_out = 0

    def write(self, session: Session) -> None:
        turns = good_turns(session, only_liked=self._only_liked)
        if not turns:
            self.num_left_out += 1
            return
        self.num_written += 1
        file = self.files[-1] if _fraction(session.uid) < self._val_share else self.files[0]
        json.dump(self._conversation(turns), file, ensure_ascii=False)
        file.write("\n")

    def _conversation(self, turns: Sequence[Turn]) -> dict[str, Any]:
        enabled = turns[-1].make_up.get("plugins", ())
        return published_conversation(self.num_written, self._meta_instruction, turns, enabled)


def good_turns(session: Session, *, only_liked: bool) -> Sequence[Turn]:
    """The beginning of the active path that is worth learning from; empty if nothing is.

    It ends before the first reply that was cut off or is disliked; with `only_liked`, with the last
    liked turn in it.
    """
    good: list[Turn] = []
    num_liked = 0
    for turn in session.turns:
        feedback = session.feedback.get(turn.id)
        if turn.finish_reason != "stop" or (feedback and feedback.liked is False):
            break
        good.append(turn)
        if feedback and feedback.liked:
            num_liked = len(good)
    return good[:num_liked] if only_liked else good


def _fraction(uid: str) -> float:
    """From 0 to 1, always the same for a chat, so that a later export holds out the same ones."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") / 2**64
