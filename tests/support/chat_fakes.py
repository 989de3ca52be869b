"""Fakes of a turn's collaborators: a character tokenizer, a scripted model, plugins, a probe."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from moss_tp.dialogue import END_TOKENS, MARKERS
from moss_tp.engine.outputs import FinishReason, TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import CheckpointError
from moss_tp.sampling.row import SampledToken
from moss_tp.sampling_params import SamplingParams
from plugins_svc.protocol.calls import Call
from plugins_svc.sdk.output import PluginOutput
from serve_app.groups import GroupState, add_up

_SPECIAL_IDS = {token: number for number, token in enumerate(END_TOKENS.values(), 1)}
_SPECIALS = re.compile("(" + "|".join(_SPECIAL_IDS) + ")")
_OFFSET = 100


class CharCodec:
    """One id a character; `spell` and `show` write special tokens as in MOSS's published data."""

    vocab_size = _OFFSET + 0x110000

    def encode(self, text: str) -> list[int]:
        return [ord(character) + _OFFSET for character in text]

    def special_id(self, token: str) -> int:
        if token not in _SPECIAL_IDS:
            raise CheckpointError(f"no token {token}")
        return _SPECIAL_IDS[token]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        if not skip_special:
            return self.show(ids)
        return "".join(map(_character, ids))

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self.decode(ids).encode()

    def spell(self, text: str) -> list[int]:
        """Ids of `text` in which `<eoc>` and its like are special tokens."""
        ids: list[int] = []
        for part in _SPECIALS.split(text):
            ids += [_SPECIAL_IDS[part]] if part in _SPECIAL_IDS else self.encode(part)
        return ids

    def show(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens spelled out."""
        names = {number: token for token, number in _SPECIAL_IDS.items()}
        return "".join(names.get(i) or _character(i) for i in ids)


def _character(token_id: int) -> str:
    """Half of a surrogate pair is not a character."""
    code = token_id - _OFFSET
    return "" if code < 0 else "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)


def think_nothing(prompt: str) -> str:
    return " Nothing to do.<eot>\n<|Commands|>: None<eoc>"


def count_turns(prompt: str) -> str:
    """A reply with the number of turns in its prompt, including the current one."""
    return f" turn {prompt.count('<eoh>')}<eom>"


def think_of(commands: str) -> Callable[[str], str]:
    return lambda prompt: f" Use it.<eot>\n<|Commands|>: {commands}<eoc>"


async def _no_wait(is_reply: bool, num_tokens: int) -> None:
    await asyncio.sleep(0)


@dataclass
class FakeModel:
    """Writes what `think` and `reply` make of the prompt, one character a delta.

    `wait` is awaited before each token with the pass and the number of tokens already out. It goes
    on after a request's `output_ids`. What ignores the end of a text ends as if it were too long.
    """

    think: Callable[[str], str] = think_nothing
    reply: Callable[[str], str] = count_turns
    wait: Callable[[bool, int], Awaitable[None]] = _no_wait
    codec: CharCodec = field(default_factory=CharCodec)
    prompts: list[str] = field(default_factory=list)
    requests: list[EngineRequest] = field(default_factory=list)
    session_ids: list[str] = field(default_factory=list)
    num_cached_tokens: int = 0
    num_running: int = 0
    num_aborted: int = 0

    @property
    def prompt_ids(self) -> list[list[int]]:
        return [list(request.prompt_ids) for request in self.requests]

    @property
    def params(self) -> list[SamplingParams]:
        return [request.params for request in self.requests]

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncIterator[TokenDelta]:
        params, prompt = request.params, self.codec.show(request.prompt_ids)
        self.prompts.append(prompt)
        self.requests.append(request)
        self.session_ids.append(session_id)
        is_reply = prompt.endswith(MARKERS["moss"])
        is_raw = not prompt.endswith(tuple(MARKERS.values()))  # its end is that of the script
        ids = self.codec.spell(self.reply(prompt) if is_reply else self.think(prompt))
        is_whole = False
        self.num_running += 1
        try:
            told = list(request.output_ids)
            assert ids[: len(told)] == told, "another reply was told"
            if told and (told[-1] in params.stop_token_ids or len(told) == params.max_tokens):
                reason: FinishReason = "stop" if told[-1] in params.stop_token_ids else "length"
                is_whole = True
                yield TokenDelta((), "", reason, len(request.prompt_ids), 0)
                return
            for number, token_id in enumerate(ids[: params.max_tokens]):
                if number < len(told):
                    continue
                await self.wait(is_reply, number)
                is_last = number + 1 == len(ids)
                is_stop = token_id in params.stop_token_ids or (is_raw and is_last)
                is_full = number + 1 == params.max_tokens or (is_last and params.ignore_eos)
                is_whole = is_stop or is_full
                yield TokenDelta(
                    (token_id,),
                    self.codec.decode([token_id]),
                    "stop" if is_stop else "length" if is_whole else None,
                    len(request.prompt_ids),
                    self.num_cached_tokens,
                    tuple(
                        SampledToken(i, -0.5) for i in (token_id,) if params.logprobs is not None
                    ),
                )
                if is_stop:
                    return
        finally:
            self.num_running -= 1
            self.num_aborted += not is_whole


class RawModel:
    """Goes on with `text`, one character a delta, and scores prompts; it stops at its own eos.

    `requests` are those that came."""

    text = " and so on"

    def __init__(self) -> None:
        self.requests: list[EngineRequest] = []

    async def generate(self, request: EngineRequest, session_id: str) -> AsyncIterator[TokenDelta]:
        self.requests.append(request)
        params, num_prompt_tokens = request.params, len(request.prompt_ids)
        ids = CharCodec().encode(self.text)[: params.max_tokens]
        scores = None
        if params.prompt_logprobs is not None:
            scores = tuple(SampledToken(i, -1.0, ((i, -1.0),)) for i in request.prompt_ids[1:])
        reason: FinishReason = "length" if len(ids) == params.max_tokens else "stop"
        if not ids:
            delta = TokenDelta((), "", reason, num_prompt_tokens, 0, prompt_logprobs=scores)
            yield delta
        for number, token_id in enumerate(ids):
            await asyncio.sleep(0)
            logprobs = () if params.logprobs is None else (SampledToken(token_id, -0.5),)
            yield TokenDelta(
                (token_id,),
                CharCodec().decode([token_id]),
                reason if number + 1 == len(ids) else None,
                num_prompt_tokens,
                0,
                logprobs,
                prompt_logprobs=None if number else scores,
            )


@dataclass
class FakePlugins:
    """Answers a call by its argument: an output, an error or a delay. Records the calls.

    A test need not wait as long as a plugin may take: a delay may be over after `patience_s`.
    """

    answers: dict[str, PluginOutput | Exception | float] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    timeouts_s: list[float] = field(default_factory=list)
    patience_s: float = inf
    num_running: int = 0
    max_running: int = 0

    async def run(self, call: Call, timeout_s: float) -> PluginOutput:
        self.calls.append(call)
        self.timeouts_s.append(timeout_s)
        self.num_running += 1
        self.max_running = max(self.max_running, self.num_running)
        try:
            answer = self.answers.get(call.argument, 0.0)
            async with asyncio.timeout(min(timeout_s, self.patience_s)):
                await asyncio.sleep(answer if isinstance(answer, float) else 0.001)
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, PluginOutput) else PluginOutput(True, ("late",))
        finally:
            self.num_running -= 1


@dataclass
class FakeProbe:
    """Has one group of two ranks, of the given health; an exception is raised."""

    healthy: bool | Exception = True
    ready: bool | Exception = True

    async def groups(self) -> tuple[GroupState, ...]:
        return (GroupState("serving" if _value(self.healthy) else "failed", "one", 2),)

    async def is_ready(self) -> bool:
        return _value(self.ready)

    async def stats(self) -> dict[str, Any]:
        blocks = {"num_blocks": 8, "free_blocks": 5, "running": 1, "waiting": 0}
        return add_up([{"replica": "one", "steps": 7, "rank_pids": (10, 11), **blocks}])


def _value(value: bool | Exception) -> bool:
    if isinstance(value, Exception):
        raise value
    return value
