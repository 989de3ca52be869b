"""A long chat: time to first token turn by turn, and the share of the prompt found in the cache.

Offline the history is token ids. Over HTTP the server keeps it, under the chat's uid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from serve_app.bench.load.drive import BenchRequest, StepEngine, drive, greedy
from serve_app.bench.load.sse_client import SseClient
from serve_app.bench.load.workload import random_prompt
from serve_app.bench.reporting.figures import Chart, Row, Section, median, milliseconds


@dataclass(frozen=True)
class ChatSpec:
    """Number of turns, and tokens of each user message and each reply."""

    num_turns: int = 20
    user: int = 32
    reply: int = 32


@dataclass(frozen=True)
class ChatTurn:
    """Of `prompt_tokens`, `history_tokens` occurred in earlier turns and `cached_tokens` came
    from the prefix cache."""

    ttft_s: float
    prompt_tokens: int
    history_tokens: int
    cached_tokens: int


def measure_chat(
    engine: StepEngine, spec: ChatSpec, random: Random, vocab_size: int
) -> list[ChatTurn]:
    """One chat with messages of random ids; every prompt contains all earlier turns."""
    history: list[int] = []
    turns = []
    for _ in range(spec.num_turns):
        prompt = [*history, *random_prompt(random, spec.user, vocab_size)]
        (trace,) = drive(engine, [BenchRequest(prompt, greedy(spec.reply))])
        turns.append(ChatTurn(trace.ttft_s, len(prompt), len(history), trace.num_cached))
        history = [*prompt, *trace.token_ids]
    return turns


async def measure_http_chats(
    url: str, num_chats: int, num_turns: int, random: Random
) -> list[list[ChatTurn]]:
    """One chat after the other on the server at `url`."""
    async with SseClient(url) as client:
        return [await measure_http_chat(client, num_turns, random) for _ in range(num_chats)]


async def measure_http_chat(client: SseClient, num_turns: int, random: Random) -> list[ChatTurn]:
    """A chat that asks for sums, so that all turns are alike.

    A turn has one prompt per pass; both count entirely as history, the new message included, so
    the reported share from cache is a lower bound.
    """
    fields: dict[str, str] = {}
    turns = []
    before = await client.counts()
    for _ in range(num_turns):
        prompt = f"计算 {random.randint(10, 99)}+{random.randint(10, 99)}"
        turn = await client.turn(prompt, **fields)
        fields = {"uid": turn.uid}
        after = await client.counts()
        new = after.since(before)
        turns.append(ChatTurn(turn.first_s, new.prompt, new.prompt, new.cached))
        before = after
    return turns


def chat_sections(chats: Mapping[str, Sequence[Sequence[ChatTurn]]], title: str) -> list[Section]:
    """A summary and a turn-by-turn table: medians over the chats of each engine."""
    by_turn = {name: _medians(repeats) for name, repeats in chats.items()}
    rows = [row for name, turns in by_turn.items() for row in _turn_rows(name, turns)]
    ttft_ms: dict[str, list[tuple[object, float]]] = {
        name: [(i + 1, milliseconds(turn.ttft_s)) for i, turn in enumerate(turns)]
        for name, turns in by_turn.items()
    }
    summary = [_summary(name, turns) for name, turns in by_turn.items()]
    chart = Chart("line", "turn", "time to first token, ms", ttft_ms)
    return [Section("chat", title, summary, [chart]), Section("turns", "turn by turn", rows)]


def _medians(chats: Sequence[Sequence[ChatTurn]]) -> list[ChatTurn]:
    """Turn by turn: the median time, and the token counts, which are the same in every chat."""
    return [
        ChatTurn(
            median([chat[i].ttft_s for chat in chats]),
            last.prompt_tokens,
            last.history_tokens,
            last.cached_tokens,
        )
        for i, last in enumerate(chats[-1])
    ]


def _summary(name: str, turns: Sequence[ChatTurn]) -> Row:
    second, last = turns[min(1, len(turns) - 1)], turns[-1]
    history = sum(turn.history_tokens for turn in turns)
    return {
        "engine": name,
        "turns": len(turns),
        "ttft_turn_2_ms": milliseconds(second.ttft_s),
        "ttft_last_ms": milliseconds(last.ttft_s),
        "last_to_2": round(last.ttft_s / second.ttft_s, 2),
        "history_tokens": history,
        "cached_of_history": _share(sum(turn.cached_tokens for turn in turns), history),
        "cached_of_last": _share(last.cached_tokens, last.history_tokens),
    }


def _turn_rows(name: str, turns: Sequence[ChatTurn]) -> list[Row]:
    return [
        {
            "engine": name,
            "turn": number,
            "ttft_ms": milliseconds(turn.ttft_s),
            "prompt": turn.prompt_tokens,
            "history": turn.history_tokens,
            "cached": turn.cached_tokens,
        }
        for number, turn in enumerate(turns, start=1)
    ]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else 0.0
