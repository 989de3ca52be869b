"""A delta on its way from a replica to an ingress, in values that msgpack knows.

TAKEN says that the replica has the request, BEGUN that its engine gets it now, and FAILED that no
more deltas come: the call itself tells why.
"""

from collections.abc import Sequence
from typing import Any

from moss_tp.engine.outputs import TokenDelta
from moss_tp.sampling.row import SampledToken

TAKEN, BEGUN, FAILED = range(3)


def pack(delta: TokenDelta) -> tuple[Any, ...]:
    """Its fields: msgpack writes a named tuple as an array."""
    return tuple(delta)


def unpack(packed: Sequence[Any]) -> TokenDelta:
    """Of fields that a replica of this application has packed."""
    token_ids, text, finish_reason, num_prompt, num_cached, logprobs, num_told, scores = packed
    return TokenDelta(
        tuple(token_ids),
        text,
        finish_reason,
        num_prompt,
        num_cached,
        _sampled(logprobs) if logprobs else (),
        num_told,
        None if scores is None else _sampled(scores),
    )


def _sampled(tokens: Sequence[Sequence[Any]]) -> tuple[SampledToken, ...]:
    return tuple(
        SampledToken(token_id, logprob, tuple((i, p) for i, p in top), *rest)
        for token_id, logprob, top, *rest in tokens
    )
