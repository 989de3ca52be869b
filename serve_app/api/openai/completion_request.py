"""The body of `POST /v1/completions`: raw text or ids, no template.

A field that is absent has OpenAI's default, not MOSS's: nothing here is a chat. Fields that would
change the answer and cannot be honoured are refused; unknown ones mean nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from moss_tp.sampling_params import MAX_LOGPROBS, SamplingParams
from serve_app.api.openai.chat_request import StreamOptions
from serve_app.api.openai.sampling import MAX_COUNT, SamplingFields
from serve_app.errors import InvalidFieldError, UnsupportedParameterError

MAX_CHOICES = 128  # of all prompts
DEFAULT_MAX_TOKENS = 16
NEUTRAL: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "repetition_penalty": 1.0,
}
# Null, false and empty mean nothing.
UNSUPPORTED = (
    "suffix",
    "response_format",
    "bad_words",
    "prompt_embeds",
    "prompt_logprobs",
    "truncate_prompt_tokens",
    "include_stop_str_in_output",
    "return_tokens_as_token_ids",
    "use_beam_search",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)

Prompt = str | list[int]
_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_TEXT = {"type": "string", "minLength": 1}
_PROMPTS = {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES}
PromptField = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [_TEXT, _IDS, {**_PROMPTS, "items": _TEXT}, {**_PROMPTS, "items": _IDS}]}
    ),
]


class CompletionBody(SamplingFields):
    """`prompt` is a text or the ids of one, or a list of either. `max_tokens` may be 0 with `echo`.

    Choices are numbered prompt by prompt, `n` for each.
    """

    prompt: PromptField
    model: str | None = None
    max_tokens: int | None = Field(None, ge=0, le=MAX_COUNT)
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, description="only n")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def params(self) -> SamplingParams:
        """The parameters of each prompt, with `prompt_logprobs` where the prompt is to be scored.

        Raises InvalidFieldError for values that do not fit each other.
        """
        max_tokens = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        if max_tokens == 0 and not self.echo:
            raise InvalidFieldError("max_tokens: 0 only with echo", "max_tokens")
        if (self.min_tokens or 0) > max_tokens:
            raise InvalidFieldError("min_tokens: more than max_tokens", "min_tokens")
        neutral = {name: value for name, value in NEUTRAL.items() if getattr(self, name) is None}
        params = replace(self.sampling_params(max(1, max_tokens), self.logprobs), **neutral)
        if max_tokens > 0 and not (self.echo and self.logprobs is not None):
            return params
        return replace(params, max_tokens=max_tokens, prompt_logprobs=self.logprobs or 0)


def check_supported(body: CompletionBody) -> None:
    """Raises UnsupportedParameterError, or InvalidFieldError for fields that exclude each other."""
    extra = body.model_extra or {}
    wrong = [name for name in UNSUPPORTED if extra.get(name) not in (None, False, "", [], {})]
    if wrong == ["response_format"] and extra["response_format"] == {"type": "text"}:
        wrong = []
    if body.best_of is not None and body.best_of != (body.n or 1):
        wrong.append("best_of")
    if wrong:
        raise UnsupportedParameterError(f"{wrong[0]}: not possible here", wrong[0])
    if body.stream_options is not None and not body.stream:
        raise InvalidFieldError("stream_options: only with stream", "stream_options")


def read_prompts(body: CompletionBody) -> list[Prompt]:
    """The prompts, each a text or ids. Raises InvalidFieldError."""
    prompts = _prompts(body.prompt)
    if any(len(prompt) == 0 for prompt in prompts):
        raise InvalidFieldError("prompt: it is empty", "prompt")
    if len(prompts) * (body.n or 1) > MAX_CHOICES:
        raise InvalidFieldError(f"n: more than {MAX_CHOICES} choices of all prompts", "n")
    return prompts


def check_ids(body: CompletionBody, prompts: Sequence[Prompt], vocab_size: int) -> None:
    """Raises InvalidFieldError for an id beyond the vocabulary, before anything is computed."""
    body.check_ids(vocab_size)
    last = max((max(ids) for ids in prompts if not isinstance(ids, str)), default=0)
    if last >= vocab_size:
        message = f"prompt: {last} is beyond the vocabulary of {vocab_size}"
        raise InvalidFieldError(message, "prompt")


def _prompts(value: Any) -> list[Prompt]:
    if isinstance(value, str) or _are_ids(value):
        return [value]
    is_list = isinstance(value, list) and value
    if is_list and (all(isinstance(one, str) for one in value) or all(map(_are_ids, value))):
        return list(value)
    raise InvalidFieldError("prompt: not a text, a list of ids, or a list of either", "prompt")


def _are_ids(value: Any) -> bool:
    """Whether it is a list of ids. An empty one is none: there is no prompt of no token."""
    if not (isinstance(value, list) and value and set(map(type, value)) == {int}):
        return False
    if not 0 <= min(value) <= max(value) <= MAX_COUNT:
        raise InvalidFieldError(f"prompt: an id is not between 0 and {MAX_COUNT}", "prompt")
    return True
