"""Token counts in OpenAI's form. With several choices the prompt counts once."""

from typing import Any

from pydantic import BaseModel

from serve_app.chat.events import Usage


class PromptTokensDetails(BaseModel):
    """`cached_tokens` of the prompt came from the prefix cache."""

    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    """`reasoning_tokens` of the completion were Inner Thoughts and Commands."""

    reasoning_tokens: int


class CompletionUsage(BaseModel):
    """Of one request, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


def add_usage(total: Usage, more: Usage) -> Usage:
    """The sum of two choices' counts."""
    return Usage(
        prompt_tokens=total.prompt_tokens + more.prompt_tokens,
        cached_tokens=total.cached_tokens + more.cached_tokens,
        completion_tokens=total.completion_tokens + more.completion_tokens,
        reasoning_tokens=total.reasoning_tokens + more.reasoning_tokens,
    )


def usage_json(usage: Usage) -> dict[str, Any]:
    """The `usage` of a response."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.num_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
