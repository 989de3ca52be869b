"""A long chat, turn after turn: how soon the first token comes, and how much comes from cache.

Offline the history is ids; `http_chat` does the same through a server, which keeps the history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from serve_app.bench.load.drive import BenchRequest, StepEngine, drive, greedy
from serve_app.bench.load.workload import random_prompt
from serve_app.bench.reporting.figures import Chart, Row, Section, middle, milliseconds


@dataclass(frozen=True)
class ChatSpec:
    """Tokens that a user's message and a reply have, for so many turns."""

    num_turns: int = 20
    user: int = 32
    reply: int = 32


@dataclass(frozen=True)
class ChatTurn:
    """`prompt_tokens` of which `cached_tokens` were not computed again; `history_tokens` of them
    had been seen in earlier turns."""

    ttft_s: float
    prompt_tokens: int
    history_tokens: int
    cached_tokens: int


def measure_chat(
    engine: StepEngine, spec: ChatSpec, random: Random, vocab_size: int
) -> list[ChatTurn]:
    """One chat with messages of random ids, every turn on top of all that was said."""
    history: list[int] = []
    turns = []
    for _ in range(spec.num_turns):
        prompt = [*history, *random_prompt(random, spec.user, vocab_size)]
        (trace,) = drive(engine, [BenchRequest(prompt, greedy(spec.reply))])
        turns.append(ChatTurn(trace.ttft_s, len(prompt), len(history), trace.num_cached))
        history = [*prompt, *trace.token_ids]
    return turns


def chat_sections(chats: Mapping[str, Sequence[Sequence[ChatTurn]]], title: str) -> list[Section]:
    """Medians over each variant's chats: turn by turn, and what the bars ask of the whole."""
    by_turn = {name: _medians(found) for name, found in chats.items()}
    rows = [row for name, turns in by_turn.items() for row in _turn_rows(name, turns)]
    waits: dict[str, list[tuple[object, float]]] = {
        name: [(i + 1, milliseconds(turn.ttft_s)) for i, turn in enumerate(turns)]
        for name, turns in by_turn.items()
    }
    summary = [_summary(name, turns) for name, turns in by_turn.items()]
    chart = Chart("line", "turn", "time to first token, ms", waits)
    return [Section("chat", title, summary, [chart]), Section("turns", "turn by turn", rows)]


def _medians(chats: Sequence[Sequence[ChatTurn]]) -> list[ChatTurn]:
    """Turn by turn: the middle time, and the last chat's counts, which are all alike."""
    return [
        ChatTurn(
            middle([chat[i].ttft_s for chat in chats]),
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
