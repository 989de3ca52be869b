"""`moss bench chat`: a long chat, offline or over HTTP."""

import asyncio
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING

import click

from serve_app.cli.bench.shared import Shared, shared_options
from serve_app.cli.options import with_options

if TYPE_CHECKING:
    from serve_app.bench.chat_bench import ChatSpec

_OPTIONS = (
    click.option("--turns", type=click.IntRange(2), default=20, show_default=True),
    click.option("--user", type=click.IntRange(1), default=32, show_default=True, help="Tokens."),
    click.option("--reply", type=click.IntRange(1), default=32, show_default=True, help="Tokens."),
    click.option("--http", is_flag=True, help="Over HTTP, on a server started for it."),
    click.option("--url", help="Over HTTP, on a running server."),
)


@click.command()
@shared_options
@with_options(*_OPTIONS)
def chat(shared: Shared, turns: int, user: int, reply: int, http: bool, url: str | None) -> None:
    """Measure a long chat: time to first token turn by turn, and what comes from cache.

    Offline the messages are random token ids of fixed lengths. Over HTTP it is a chat of sums
    by uid, for a model that ends its replies; the time to its first piece includes the first pass.
    """
    from serve_app.bench.chat_bench import ChatSpec

    if http or url:
        _over_http(shared, url, turns)
    else:
        _offline(shared, ChatSpec(turns, user, reply))


def _over_http(shared: Shared, url: str | None, num_turns: int) -> None:
    from serve_app.bench.chat_bench import chat_sections, measure_http_chats
    from serve_app.bench.load.server_process import running_server

    with ExitStack() as stack:
        server_url = url or stack.enter_context(running_server(shared.serve_flags)).url
        random = Random(shared.seed)
        chats = asyncio.run(measure_http_chats(server_url, shared.repeats, num_turns, random))
    title = "chat over HTTP by uid (history: the whole prompts of both passes)"
    shared.show(chat_sections({"over HTTP": chats}, title))


def _offline(shared: Shared, spec: "ChatSpec") -> None:
    from serve_app.bench.chat_bench import chat_sections, measure_chat
    from serve_app.bench.launch import alternate

    engine_spec, random = shared.spec(), Random(shared.seed)
    vocab_size = engine_spec.model_config.vocab_size
    chats = alternate(
        [engine_spec],
        shared.repeats,
        lambda engine: measure_chat(engine, spec, random, vocab_size),
    )
    title = f"chat: messages of {spec.user} tokens, replies of {spec.reply}"
    shared.show(chat_sections(chats, title))
