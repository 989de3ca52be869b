"""The body of `POST /v1/chat/completions`, to a stateless ReplyRequest or a session's TurnRequest.

Fields that would change the answer and cannot be honoured are refused; unknown ones mean nothing.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.sampling_params import MAX_LOGPROBS, SamplingParams
from serve_app.api.openai.messages import Message, read_messages, read_new_message
from serve_app.api.openai.sampling import MAX_COUNT, SamplingFields
from serve_app.api.openai.tools import MAX_TOOLS, ToolDefinition, check_tool_choice, read_tools
from serve_app.chat.calling.tools import MAX_TOOL_CALLS
from serve_app.chat.request import ReplyRequest
from serve_app.chat.turn import TurnRequest
from serve_app.errors import InvalidFieldError, UnsupportedParameterError

# OpenAI's and vLLM's fields that would change the answer. Null, false and empty mean nothing.
UNSUPPORTED = (
    "functions",
    "function_call",
    "audio",
    "web_search_options",
    "echo",
    "continue_final_message",
    "documents",
    "chat_template",
    "bad_words",
    "prompt_logprobs",
    "use_beam_search",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)
# What does not change what is asked of a session.
_DELIVERY = {"stream", "stream_options", "model", "session_id", "user", "max_time"}


class StreamOptions(BaseModel):
    """What a stream has beside the reply."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    include_usage: bool | None = None


class ChatCompletionRequest(SamplingFields):
    """`max_tokens` bounds the reply, `max_completion_tokens` thoughts and reply together.

    With `session_id` the one message continues that session. `plugins` are those that may run.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "12 * 34?"}]}]}
    )

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_COUNT)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_COUNT)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    response_format: dict[str, Any] | None = Field(None, description="only of type text")
    tools: list[ToolDefinition] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Any = Field(None, description='"auto" or "none"')
    parallel_tool_calls: bool | None = None
    plugins: list[str] | None = Field(None, max_length=64)
    session_id: str | None = None
    user: str | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def has_tools(self) -> bool:
        """Whether it uses a client's tools: then the server's plugins are off."""
        return bool(self.tools) or self.messages[-1].role == "tool"

    @property
    def text(self) -> str:
        """What a prompt of it consists of, for an estimate of its length."""
        return json.dumps(self.model_dump(mode="json", include={"messages", "tools"}))


@dataclass(frozen=True)
class Serving:
    """What the server adds to a request. `deadline` is in `time.monotonic` seconds."""

    request_id: str
    owner: str
    enabled: frozenset[str]
    max_model_len: int
    deadline: float


def check_supported(body: ChatCompletionRequest, has_thoughts: bool) -> None:
    """Raises UnsupportedParameterError, or InvalidFieldError for fields that exclude each other.

    A model without thoughts calls no tools.
    """
    extra = body.model_extra or {}
    wrong = [name for name in UNSUPPORTED if extra.get(name) not in (None, False, "", [], {})]
    if body.response_format not in (None, {"type": "text"}):
        wrong.append("response_format")
    if extra.get("modalities") not in (None, [], ["text"]):
        wrong.append("modalities")
    if body.has_tools and not (has_thoughts and body.session_id is None):
        wrong.append("tools")
    if wrong:
        raise UnsupportedParameterError(f"{wrong[0]}: not possible here", wrong[0])
    check_tool_choice(body.tool_choice)
    _check_fits(body)


def _check_fits(body: ChatCompletionRequest) -> None:
    if body.stream_options is not None and not body.stream:
        raise InvalidFieldError("stream_options: only with stream", "stream_options")
    if body.top_logprobs and not body.logprobs:
        raise InvalidFieldError("top_logprobs: only with logprobs", "top_logprobs")
    if body.session_id is not None and (body.n or 1) != 1:
        raise InvalidFieldError("n: a turn of a session has one reply", "n")
    if body.has_tools and body.plugins:
        raise InvalidFieldError("plugins: they are off where there are tools", "plugins")


def reply_request(body: ChatCompletionRequest, serving: Serving) -> ReplyRequest:
    """The stateless request. Raises InvalidFieldError and UnsupportedParameterError."""
    conversation = read_messages(body.messages)
    tools = read_tools(body.tools or ())
    return ReplyRequest(
        request_id=serving.request_id,
        history=conversation.history,
        user=conversation.user,
        params=_params(body),
        enabled=frozenset() if body.has_tools else serving.enabled,
        max_length=serving.max_model_len,
        deadline=serving.deadline,
        owner=serving.owner,
        system=conversation.system,
        tools=() if body.tool_choice == "none" else tools,
        max_tool_calls=1 if body.parallel_tool_calls is False else MAX_TOOL_CALLS,
        max_completion_tokens=body.max_completion_tokens,
        so_far=conversation.so_far,
        is_streamed=bool(body.stream),
    )


def turn_request(
    body: ChatCompletionRequest, serving: Serving, idempotency_key: str | None
) -> TurnRequest:
    """The turn of the session that `body` names. Raises InvalidFieldError."""
    return TurnRequest(
        owner=serving.owner,
        user=read_new_message(body.messages),
        fingerprint=_fingerprint(body),
        params=_params(body),
        enabled=serving.enabled,
        max_length=serving.max_model_len,
        uid=body.session_id,
        idempotency_key=idempotency_key,
        max_time_s=body.max_time,
        must_exist=True,
        named=_named(body),
        max_completion_tokens=body.max_completion_tokens,
        is_streamed=bool(body.stream),
    )


def _params(body: ChatCompletionRequest) -> SamplingParams:
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return body.sampling_params(body.max_tokens or MAX_COUNT, logprobs)


def _named(body: ChatCompletionRequest) -> frozenset[str]:
    """The fields that hold instead of the session's."""
    return frozenset(name for name in body.model_fields_set if getattr(body, name) is not None)


def _fingerprint(body: ChatCompletionRequest) -> str:
    """A digest of what is asked, however it is delivered."""
    ignored = _DELIVERY | set(body.model_extra or ())
    asked = body.model_dump(mode="json", exclude=ignored, exclude_none=True)
    asked["plugins"] = body.plugins and sorted(set(body.plugins))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
