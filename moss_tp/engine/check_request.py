"""Checks a request before anything runs: types, ids, lengths. It changes nothing and needs no lock,
so that a wrong request ends in its caller's thread."""

from collections.abc import Collection
from dataclasses import replace

from moss_tp import checks
from moss_tp.engine.request import EngineRequest
from moss_tp.engine.scheduling.waiting_queue import MAX_PRIORITY
from moss_tp.errors import ContextLengthError, InvalidRequestError
from moss_tp.sampling_params import SamplingParams


def check_request(request: EngineRequest, vocab_size: int, context_length: int) -> EngineRequest:
    """The request with its ids as lists of plain ints.

    Raises InvalidRequestError, naming the field, for a value of another type or out of range, and
    ContextLengthError for a prompt that leaves no room for a reply.
    """
    if not isinstance(request.params, SamplingParams):
        raise InvalidRequestError(f"params is not SamplingParams: {checks.shown(request.params)}")
    if request.params.n != 1:
        raise InvalidRequestError("n: the engine takes single requests; split() makes them")
    room = context_length - 1 if request.params.max_tokens else context_length
    num_prompt = checks.length("prompt_ids", request.prompt_ids)
    if num_prompt == 0:
        raise InvalidRequestError("prompt_ids is empty: the prompt has no token")
    if num_prompt > room:
        raise ContextLengthError(
            f"the prompt has {num_prompt} tokens; with room for a reply at most {room} are possible"
        )
    _check_output(request, context_length - num_prompt)
    _check_settings(request, num_prompt)
    _check_vocab("stop_token_ids", request.params.stop_token_ids, vocab_size)
    _check_vocab("logit_bias", [i for i, _ in request.params.logit_bias], vocab_size)
    return replace(
        request,
        prompt_ids=_token_ids("prompt_ids", request.prompt_ids, vocab_size),
        output_ids=_token_ids("output_ids", request.output_ids, vocab_size),
    )


def _check_output(request: EngineRequest, room: int) -> None:
    num_output = checks.length("output_ids", request.output_ids)
    if num_output > request.params.max_tokens:
        raise InvalidRequestError(
            f"output_ids has {num_output} tokens, more than max_tokens {request.params.max_tokens}"
        )
    if num_output > room:
        raise ContextLengthError(
            f"output_ids has {num_output} tokens; after this prompt at most {room} are possible"
        )


def _check_settings(request: EngineRequest, num_prompt: int) -> None:
    checks.text("request_id", request.request_id)
    checks.text("salt", request.salt)
    checks.boolean("is_continuation", request.is_continuation)
    checks.optional(checks.number)("deadline_s", request.deadline_s)
    if not -MAX_PRIORITY <= checks.integer("priority", request.priority) <= MAX_PRIORITY:
        raise InvalidRequestError(f"priority is out of range: {request.priority}")
    num_shared = checks.integer("num_shared_tokens", request.num_shared_tokens)
    if not 0 <= num_shared <= num_prompt:
        raise InvalidRequestError(f"num_shared_tokens is out of range: {num_shared}")


def _token_ids(field: str, ids: Collection[object], vocab_size: int) -> list[int]:
    members = list(ids)
    if set(map(type, members)) - {int}:  # rarely: of numpy, or wrong
        members = [checks.integer(field, member) for member in members]
    found: list[int] = members  # type: ignore[assignment]
    _check_vocab(field, found, vocab_size)
    return found


def _check_vocab(field: str, ids: Collection[int], vocab_size: int) -> None:
    if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
        wrong = next(token_id for token_id in ids if not 0 <= token_id < vocab_size)
        raise InvalidRequestError(
            f"{field} has {checks.shown(wrong)}, which is outside the vocabulary of {vocab_size}"
        )
