"""Which of a client's sampling parameters act on which pass.

The first pass takes temperature, top_p, top_k, min_p and repetition_penalty, and its own
seed; all others act on the reply only, where the client sees their effect.
"""

from dataclasses import replace

from moss_tp.sampling_params import SamplingParams


def thoughts_params(
    params: SamplingParams, max_tokens: int, stop_token_ids: tuple[int, ...]
) -> SamplingParams:
    """The first pass's parameters."""
    return SamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        max_tokens=max_tokens,
        stop_token_ids=stop_token_ids,
    )


def reply_params(params: SamplingParams, room: int, eom_id: int) -> SamplingParams:
    """The reply's parameters, for one choice of at most `room` tokens.

    `eom_id` ends the reply unless the client ignores eos. `min_tokens` is cut to what fits.
    Raises InvalidRequestError if there are too many stop ids.
    """
    max_tokens = min(params.max_tokens, room)
    own_stops = () if params.ignore_eos else (eom_id,)
    return replace(
        params,
        n=1,
        max_tokens=max_tokens,
        min_tokens=min(params.min_tokens, max_tokens),
        stop_token_ids=tuple(dict.fromkeys((*own_stops, *params.stop_token_ids))),
    )
