"""What a request asks of the engine, as far as its body shows it to who knows no dialect."""

import json
from dataclasses import dataclass
from math import inf
from typing import Any, Self

# Fields that bound a reply in one dialect or another.
_TOKENS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "max_length")
# A prompt adds little to the work ahead, but some.
_MIN_SHARE_OF_BYTES = 0.5


@dataclass(frozen=True)
class Demand:
    """`tokens` are the bounds in `_TOKENS`; what a body does not name is without a bound."""

    deadline_s: float
    tokens: tuple[float, ...]
    num_choices: float
    num_bytes: int

    @classmethod
    def of(cls, body: bytes) -> Self | None:
        """None if this is not a body that an endpoint takes."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        try:
            tokens = tuple(_number(fields, name, inf) for name in _TOKENS)
            num_choices = _number(fields, "n", 1) * _num_prompts(fields.get("prompt"))
            return cls(_number(fields, "max_time", inf), tokens, num_choices, len(body))
        except ValueError:
            return None

    def is_no_easier(self, other: "Demand") -> bool:
        """Whether the engine can give this in time only if it can give the `other`, where what
        the bodies do not show is alike."""
        return (
            self.deadline_s <= other.deadline_s
            and all(own >= its for own, its in zip(self.tokens, other.tokens, strict=True))
            and self.num_choices >= other.num_choices
            and self.num_bytes >= _MIN_SHARE_OF_BYTES * other.num_bytes
        )


def _num_prompts(prompt: object) -> int:
    """Of a raw completion: a list of texts or of lists of ids has several."""
    if not isinstance(prompt, list) or any(isinstance(each, int) for each in prompt):
        return 1
    return max(1, len(prompt))


def _number(fields: dict[str, Any], name: str, default: float) -> float:
    """Raises ValueError if the field is there, and no number."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(name)
    return value
