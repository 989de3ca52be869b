"""The sampling fields of OpenAI's requests, with those that vLLM adds, to SamplingParams.

A field that is absent or null has MOSS's default. It knows neither messages nor prompts.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.sampling_params import (
    MAX_BIASES,
    MAX_N,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    SamplingParams,
)
from serve_app.errors import InvalidFieldError

MAX_COUNT = 2**31 - 1  # larger than any model's context, and still a machine integer
_MAX_SEED = 2**63

Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
TokenId = Annotated[int, Field(ge=0, le=MAX_COUNT)]
BiasedId = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
# The fields whose names and values SamplingParams shares.
_SAME = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "stop",
    "n",
)


class SamplingFields(BaseModel):
    """What chat completions and completions share. Unknown fields are kept, and mean nothing."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    temperature: float | None = Field(None, ge=0, le=10, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=-1, le=MAX_COUNT, description="0 and -1: off")
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    repetition_penalty: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[BiasedId, Bias] | None = Field(None, max_length=MAX_BIASES)
    n: int | None = Field(None, ge=1, le=MAX_N)
    seed: int | None = Field(None, ge=-_MAX_SEED, lt=2 * _MAX_SEED)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOP_STRINGS)] | None = None
    stop_token_ids: list[TokenId] | None = Field(None, max_length=MAX_STOP_TOKEN_IDS)
    min_tokens: int | None = Field(None, ge=0, le=MAX_COUNT)
    ignore_eos: bool | None = None
    max_time: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="seconds for the whole request"
    )

    def sampling_params(self, max_tokens: int, logprobs: int | None) -> SamplingParams:
        """The parameters of replies of at most `max_tokens`.

        Raises InvalidFieldError for values that do not fit each other.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in _SAME}
        values = {name: value for name, value in values.items() if value is not None}
        if self.top_k is not None:
            values["top_k"] = max(0, self.top_k)
        if self.seed is not None:
            values["seed"] = self.seed % _MAX_SEED
        if (self.min_tokens or 0) > max_tokens:
            raise InvalidFieldError("min_tokens: more than the maximum", "min_tokens")
        return SamplingParams(
            **values, logit_bias=self._biases(), max_tokens=max_tokens, logprobs=logprobs
        )

    def check_ids(self, vocab_size: int) -> None:
        """Raises InvalidFieldError for an id beyond the vocabulary, before anything is computed."""
        for name, ids in (
            ("stop_token_ids", self.stop_token_ids or ()),
            ("logit_bias", map(int, self.logit_bias or ())),
        ):
            if any(token_id >= vocab_size for token_id in ids):
                raise InvalidFieldError(f"{name}: an id is beyond the vocabulary", name)

    def _biases(self) -> tuple[tuple[int, float], ...]:
        """OpenAI's keys are strings, since JSON has no others."""
        biases = {int(token_id): bias for token_id, bias in (self.logit_bias or {}).items()}
        if len(biases) != len(self.logit_bias or ()):
            raise InvalidFieldError("logit_bias: it has an id twice", "logit_bias")
        return tuple(biases.items())
