"""The bodies and answers of `POST /tokenize` and `/detokenize`, as vLLM's servers have them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.openai.chat_request import ChatCompletionRequest
from serve_app.api.openai.messages import Message
from serve_app.api.openai.sampling import MAX_COUNT
from serve_app.api.openai.tools import MAX_TOOLS, ToolDefinition
from serve_app.api.tokens import TextTokenizer
from serve_app.errors import InvalidFieldError

Id = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class TokenizeBody(BaseModel):
    """Either a raw `prompt`, or the `messages` of a chat completion, whose prompt it is then."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="ignore",
        json_schema_extra={"examples": [{"prompt": "你是谁？"}]},
    )

    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)
    tools: list[ToolDefinition] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Any = Field(None, description='"auto" or "none"')
    plugins: list[str] | None = Field(None, max_length=64)
    model: str | None = None
    return_token_strs: bool | None = None

    def chat(self) -> ChatCompletionRequest | None:
        """The chat completion whose prompt is asked for; None where it is a raw one.

        Raises InvalidFieldError unless there is one of the two.
        """
        if (self.prompt is None) == (self.messages is None):
            raise InvalidFieldError("prompt: either it or messages", "prompt")
        if self.messages is None:
            return None
        names = ("messages", "tools", "tool_choice", "plugins")
        return ChatCompletionRequest.model_validate({name: getattr(self, name) for name in names})


class Tokens(BaseModel):
    """`max_model_len` bounds a prompt and its reply, in tokens."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeBody(BaseModel):
    """Ids of the model's vocabulary."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    tokens: list[Id]
    model: str | None = None


class Detokenized(BaseModel):
    """`prompt` has special tokens as their names, which would not be read back as such."""

    prompt: str


def tokens_answer(
    ids: list[int], max_model_len: int, tokenizer: TextTokenizer, with_texts: bool
) -> Tokens:
    """The answer of `POST /tokenize`."""
    texts = [tokenizer.decode([i], skip_special=False) for i in ids] if with_texts else None
    return Tokens(count=len(ids), max_model_len=max_model_len, tokens=ids, token_strs=texts)


def check_ids(ids: list[int], tokenizer: TextTokenizer) -> None:
    """Raises InvalidFieldError for an id that the tokenizer does not have."""
    if ids and max(ids) >= tokenizer.vocab_size:
        message = f"tokens: {max(ids)} is outside the vocabulary of {tokenizer.vocab_size}"
        raise InvalidFieldError(message, "tokens")
