"""The offline engine: a list of prompts in, a list of finished requests out."""

from collections import deque
from collections.abc import Sequence
from itertools import count
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

from moss_tp.checks import items, length, shown, text
from moss_tp.config import resolve_model
from moss_tp.engine.build import build_engine
from moss_tp.engine.letters import Letters
from moss_tp.engine.outputs import CompletionOutput, RequestOutput, TokenDelta
from moss_tp.engine.request import EngineRequest
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import EngineDeadError, InvalidRequestError
from moss_tp.sampling_params import SamplingParams
from moss_tp.tokenizer import Tokenizer

Prompt = str | Sequence[int]
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
_Deltas = dict[str, list[TokenDelta]]  # by request id


class LLM:
    """A model on `tp_size` ranks. `model` is a directory or a hub id.

    `executor` "local" runs the ranks as processes of this machine, "ray" as Ray actors.
    `kv_cache_bytes` is the size of the KV cache of each rank; `kv_cache_dtype="int8"` halves its
    bytes per token, and `lm_head_bits=8` those of the LM head. `load_format="dummy"` makes random
    weights; where `model` has no tokenizer either, prompts are token ids, and every id of a reply
    is a letter. `close()` it, or use it in a `with`.

    Raises ConfigError or CheckpointError for settings or a model that cannot work.
    """

    def __init__(
        self,
        model: str,
        tp_size: int = 1,
        device: str = "cpu",
        dtype: str = "bfloat16",
        executor: str = "local",
        max_model_len: int | None = None,
        kv_cache_bytes: int | None = None,
        *,
        kv_cache_dtype: str | None = None,
        block_size: int = 16,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 1024,
        num_speculative_tokens: int = 7,
        num_threads: int | None = None,
        step_timeout_s: float | None = None,
        cpu_offload_gb: float = 0,
        load_format: str = "auto",
        lm_head_bits: int | None = None,
    ) -> None:
        config = EngineConfig(
            model=str(resolve_model(model, with_weights=load_format != "dummy")),
            tp_size=tp_size,
            device=device,
            dtype=dtype,
            max_model_len=max_model_len,
            kv_cache_bytes=kv_cache_bytes,
            kv_cache_dtype=kv_cache_dtype,
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_queue_s=inf,
            num_speculative_tokens=num_speculative_tokens,
            num_threads=num_threads,
            step_timeout_s=step_timeout_s,
            cpu_offload_gb=cpu_offload_gb,
            load_format=load_format,
            lm_head_bits=lm_head_bits,
        )
        self.tokenizer = _tokenizer(config)
        self.engine = build_engine(config, executor, tokenizer=self.tokenizer)
        self._request_ids = count()

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        output_ids: Sequence[Sequence[int]] | None = None,
    ) -> list[RequestOutput]:
        """One output per prompt, in order, with `n` replies as its params say. Text is encoded
        without special tokens.

        `output_ids` has, for each prompt, the first tokens of its reply (or none): the reply goes
        on after them as it would have with the same seed, and its output holds what comes after
        them.

        A reply that alone is too large for the device's memory ends with `finish_reason` "error";
        the others go on.

        Raises InvalidRequestError or ContextLengthError before anything runs, EngineDeadError
        when a rank is lost.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise InvalidRequestError("prompts is a list: put a single prompt into one")
        told = _told_each(output_ids, len(prompts))
        groups = [
            self._requests(prompt, one, ids)
            for prompt, one, ids in zip(prompts, _one_each(params, len(prompts)), told, strict=True)
        ]
        requests = [request for group in groups for request in group]
        deltas: _Deltas = {request.request_id: [] for request in requests}
        try:
            self._run(groups, deltas)
        finally:
            for request in requests:
                self.engine.abort(request.request_id)
        return [_output(group, deltas) for group in groups]

    def close(self) -> None:
        """Ends every rank. Idempotent."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _requests(
        self, prompt: Prompt, params: SamplingParams, output_ids: Sequence[int]
    ) -> list[EngineRequest]:
        """One request for each of the `n` replies, checked."""
        if params.n > 1 and len(output_ids) > 0:
            raise InvalidRequestError(f"output_ids is of one reply, and n is {params.n}")
        name = next(self._request_ids)
        prompt_ids = self._encode(prompt) if isinstance(prompt, str) else prompt
        return [
            self.engine.check_request(
                EngineRequest(f"{name}.{i}", prompt_ids, one, output_ids=output_ids)
            )
            for i, one in enumerate(params.split())
        ]

    def _encode(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(text("prompts", prompt))

    def _run(self, groups: Sequence[Sequence[EngineRequest]], deltas: _Deltas) -> None:
        """Runs all requests to their end. The other replies to a prompt are added once the first
        has computed it, so that they find it in the prefix cache."""
        queue = deque(group[0] for group in groups)
        others = {group[0].request_id: group[1:] for group in groups}
        by_id = {request.request_id: request for group in groups for request in group}
        while queue or self.engine.has_work:
            while queue and self.engine.can_add:
                self.engine.add_checked(queue.popleft())
            self.engine.start_step()
            for request_id, delta in self.engine.take_deltas():
                deltas[request_id].append(delta)
                queue.extend(others.pop(request_id, ()))
            self.engine.finish_step()
            for request_id, _ in self.engine.take_failures():
                deltas[request_id].append(_failure(by_id[request_id], deltas[request_id]))
                queue.extend(others.pop(request_id, ()))


def _failure(request: EngineRequest, deltas: Sequence[TokenDelta]) -> TokenDelta:
    """The last delta, after `deltas`, of a reply that cannot go on."""
    if deltas:
        return deltas[-1]._replace(token_ids=(), text="", finish_reason="error", logprobs=())
    num_prompt_tokens, num_told = len(request.prompt_ids), len(request.output_ids)
    return TokenDelta((), "", "error", num_prompt_tokens, 0, num_told_tokens=num_told)


def _tokenizer(config: EngineConfig) -> Tokenizer | Letters:
    """Random weights do without one."""
    has_none = not any((Path(config.model) / file).exists() for file in _TOKENIZER_FILES)
    if config.load_format == "dummy" and has_none:
        return Letters()
    return Tokenizer.from_dir(config.model)


def _output(group: Sequence[EngineRequest], deltas: _Deltas) -> RequestOutput:
    first = deltas[group[0].request_id][-1]
    scores = (delta.prompt_logprobs for delta in deltas[group[0].request_id])
    prompt_logprobs = next((score for score in scores if score is not None), None)
    return RequestOutput(
        request_id=group[0].request_id.split(".")[0],
        num_prompt_tokens=first.num_prompt_tokens,
        num_cached_tokens=first.num_cached_tokens,
        outputs=tuple(_completion(request, deltas[request.request_id]) for request in group),
        prompt_logprobs=None if prompt_logprobs is None else list(prompt_logprobs),
    )


def _completion(request: EngineRequest, deltas: Sequence[TokenDelta]) -> CompletionOutput:
    finish_reason = deltas[-1].finish_reason
    if finish_reason is None:
        raise EngineDeadError("the engine stopped before the request was finished")
    logprobs = [token for delta in deltas for token in delta.logprobs]
    return CompletionOutput(
        token_ids=[token_id for delta in deltas for token_id in delta.token_ids],
        text="".join(delta.text for delta in deltas),
        finish_reason=finish_reason,
        logprobs=None if request.params.logprobs is None else logprobs,
        num_told_tokens=deltas[-1].num_told_tokens,
    )


def _one_each(params: object, num_prompts: int) -> Sequence[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * num_prompts
    if not isinstance(params, Sequence):
        raise InvalidRequestError(f"params is not SamplingParams: {shown(params)}")
    if len(params) != num_prompts:
        raise InvalidRequestError(f"{len(params)} sampling params for {num_prompts} prompts")
    for one in params:
        if not isinstance(one, SamplingParams):
            raise InvalidRequestError(f"params has {shown(one)}, which is not SamplingParams")
    return params


def _told_each(output_ids: object, num_prompts: int) -> Sequence[Sequence[int]]:
    if output_ids is None:
        return [()] * num_prompts
    length("output_ids", output_ids)
    each = items("output_ids", output_ids, num_prompts)
    if len(each) != num_prompts:
        raise InvalidRequestError(f"output_ids has {len(each)} replies for {num_prompts} prompts")
    for one in each:
        length("output_ids", one)
    return each
