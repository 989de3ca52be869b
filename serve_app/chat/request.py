"""A request for a reply, and one choice of it while it is generated."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from moss_tp.engine.request import DELTA_INTERVAL_S, EngineRequest
from moss_tp.sampling_params import SamplingParams, derive_seed
from plugins_svc.protocol.calls import Call
from serve_app.chat.calling.shared_call import SharedCall
from serve_app.chat.calling.tools import MAX_TOOL_CALLS, Tool, capability_lines
from serve_app.chat.resume import NOTHING_TOLD, CallLog, NoCallLog, Resume, TimedOutput
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.fit import Prompt
from serve_app.request_context import current_traceparent

# Tokens that nobody reads before the end of the reply travel together, which costs less. What is
# cut at its deadline loses those on their way: so they wait for a small part of it.
UNREAD_INTERVAL_S = 1.0
_UNREAD_SHARE = 0.05


def delta_interval_s(is_streamed: bool, time_left_s: float) -> float:
    """How long tokens of a reply, told as it comes or as a whole, may wait for the next ones."""
    if is_streamed:
        return DELTA_INTERVAL_S
    return max(DELTA_INTERVAL_S, min(UNREAD_INTERVAL_S, _UNREAD_SHARE * time_left_s))


@dataclass
class Meter:
    """How many tokens a reply has used so far, besides its first prompt: Results, and all that was
    generated, told or not."""

    num_tokens: int = 0


@dataclass(frozen=True)
class ReplyRequest:
    """What to reply to, and how.

    `max_length` bounds the prompt and everything generated, in tokens; `params.max_tokens`
    bounds the reply alone. `enabled` names the plugins that may run. `deadline` is in
    `time.monotonic` seconds. Prompts of different `owner` share no cached block beyond the
    instruction. `session_id` is a routing hint; a smaller `priority` is served earlier.

    `prompt` is that of the first pass, if it was built before. `resume` is what an earlier run
    told. A reply that has begun ends soon after `stop` is set, with "cancelled".

    `system` is a client's own instruction. `max_completion_tokens` bounds thoughts and reply
    together. The model may call `tools` once, `max_tool_calls` at a time, which ends the reply.
    With their results the turn goes on: `so_far` is `user` and everything before the reply.

    Without `is_streamed` nobody reads the reply before its end.
    """

    request_id: str
    history: Sequence[Exchange]
    user: str
    params: SamplingParams
    enabled: frozenset[str]
    max_length: int
    deadline: float
    owner: str = ""
    session_id: str = ""
    priority: int = 0
    system: str = ""
    tools: tuple[Tool, ...] = ()
    max_tool_calls: int = MAX_TOOL_CALLS
    max_completion_tokens: int | None = None
    so_far: Exchange | None = None
    is_streamed: bool = True
    prompt: Prompt | None = None
    resume: Resume = NOTHING_TOLD
    call_log: CallLog = field(default_factory=NoCallLog)
    stop: asyncio.Event | None = None
    meter: Meter = field(default_factory=Meter)

    @property
    def instructions(self) -> str:
        """What the client adds to the meta instruction, which no other owner shares."""
        system = f"{self.system}\n" if self.system else ""
        return capability_lines(self.tools) + system

    @property
    def chat(self) -> str:
        """Names the chat among those of its owner: its session or, as a client that keeps none
        sends the whole chat every time, how it begins."""
        if self.session_id:
            return self.session_id
        first = self.history[0].user if self.history else self.user
        return hashlib.sha256(f"{self.instructions}\0{first}".encode()).hexdigest()

    def max_thoughts_tokens(self, num_prompt_tokens: int) -> int:
        """How long the first pass may be: half of the room, so that the reply has the rest."""
        room = self.max_length - num_prompt_tokens
        return min(room, self.max_completion_tokens or room) // 2

    def max_reply_tokens(self, num_prompt_tokens: int, num_thoughts_tokens: int) -> int:
        """How long the reply may be, after a prompt that has the thoughts in it."""
        room = self.max_length - num_prompt_tokens
        if self.max_completion_tokens is None:
            return room
        return min(room, self.max_completion_tokens - num_thoughts_tokens)


@dataclass(frozen=True)
class Choice:
    """Choice number `index` of a request. Its choices share all but `index` and `refused`.

    `has_begun` is set when the first choice has computed the prompt, which the others then find
    in the prefix cache. `answers` holds the plugin calls that equal calls of other choices reuse.
    `has_sent` is set when a call with effects may have been sent, `refused` when the rest of the
    reply is not wanted.
    """

    request: ReplyRequest
    prompt: Prompt
    index: int
    seed: int
    has_begun: asyncio.Event
    answers: dict[Call, SharedCall[TimedOutput]]
    has_sent: asyncio.Event = field(default_factory=asyncio.Event)
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def time_left_s(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.request.deadline - time.monotonic()

    @property
    def is_stopped(self) -> bool:
        stop = self.request.stop
        return self.refused.is_set() or (stop is not None and stop.is_set())

    def engine_request(
        self,
        pass_number: int,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        output_ids: Sequence[int] = (),
    ) -> EngineRequest:
        """The request for pass `pass_number`, counted from 1, with its own seed.

        It goes on after `output_ids`.
        """
        again = f".{run}" if (run := self.request.resume.run) else ""
        return EngineRequest(
            request_id=f"{self.request.request_id}-{self.index}-{pass_number}{again}",
            prompt_ids=prompt_ids,
            params=replace(params, seed=derive_seed(self.seed, self.index, pass_number)),
            salt=self.request.owner,
            num_shared_tokens=self.prompt.num_shared_tokens,
            priority=self.request.priority,
            deadline_s=max(0.0, self.time_left_s),
            is_continuation=pass_number > 1,
            output_ids=output_ids,
            delta_interval_s=delta_interval_s(self.request.is_streamed, self.time_left_s),
            traceparent=current_traceparent(),
        )
