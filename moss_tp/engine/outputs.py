"""What the engine returns: deltas while a request runs, or one RequestOutput at its end."""

from dataclasses import dataclass
from typing import NamedTuple

from moss_tp.engine.scheduling.sequence import FinishReason
from moss_tp.sampling.row import SampledToken

__all__ = ["CompletionOutput", "FinishReason", "RequestOutput", "TokenDelta"]


class TokenDelta(NamedTuple):
    """New tokens of one request, with the text that became complete with them.

    `text` never splits a UTF-8 character and never contains a special token or part of a stop
    string; it may be empty. `finish_reason` is set on the last delta only. `logprobs` has one
    entry per token if the request wants them. `num_told_tokens` came with the request as
    `output_ids`: no delta has them, and they count as the reply's. `prompt_logprobs` has an entry
    for each token of the prompt but the first, on the first delta of a request that wants them.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    num_prompt_tokens: int
    num_cached_tokens: int
    logprobs: tuple[SampledToken, ...] = ()
    num_told_tokens: int = 0
    prompt_logprobs: tuple[SampledToken, ...] | None = None


@dataclass(frozen=True)
class CompletionOutput:
    """One of a request's `n` replies. `token_ids` includes a stop id at its end, `text` does not.

    `finish_reason` is "error" for a reply whose next token alone did not fit into the device's
    memory; it holds what came before. Its text may lack the end of that.

    `logprobs` has one entry per token, or is None if the request did not want them. A resumed
    reply goes on in all three where the tokens end that the request came with; the number of
    those is `num_told_tokens`.
    """

    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    logprobs: list[SampledToken] | None
    num_told_tokens: int = 0


@dataclass(frozen=True)
class RequestOutput:
    """A finished request: its replies, and the fields of the first one as its own.

    `prompt_logprobs` has an entry for each token of the prompt but the first, or is None if the
    request did not want them, or ended with an error before.
    """

    request_id: str
    num_prompt_tokens: int
    num_cached_tokens: int
    outputs: tuple[CompletionOutput, ...]
    prompt_logprobs: list[SampledToken] | None = None

    @property
    def token_ids(self) -> list[int]:
        return self.outputs[0].token_ids

    @property
    def text(self) -> str:
        return self.outputs[0].text

    @property
    def finish_reason(self) -> FinishReason:
        return self.outputs[0].finish_reason

    @property
    def logprobs(self) -> list[SampledToken] | None:
        return self.outputs[0].logprobs
