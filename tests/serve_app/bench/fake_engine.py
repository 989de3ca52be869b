"""A fake engine: a step takes one second and gives every running request one token."""

from collections.abc import Sequence

from moss_tp.engine.outputs import TokenDelta
from moss_tp.engine.request import EngineRequest

STEP_S = 1.0
FORWARD_S = 0.75


class FakeEngine:
    """`now` and `sleep` are its clock. It runs at most `max_requests` at once."""

    def __init__(self, max_requests: int = 100) -> None:
        self.clock = 100.0
        self.forward_s = 0.0
        self.slept: list[float] = []
        self.prompts: list[list[int]] = []
        self._max_requests = max_requests
        self._left: dict[str, tuple[int, int, int]] = {}
        self._deltas: list[tuple[str, TokenDelta]] = []
        self._is_step_running = False

    @property
    def has_work(self) -> bool:
        return bool(self._left or self._deltas)

    @property
    def can_add(self) -> bool:
        return len(self._left) < self._max_requests

    def add_request(self, request: EngineRequest) -> None:
        request_id, prompt_ids = request.request_id, request.prompt_ids
        assert request_id not in self._left
        cached = max((_common(prompt_ids, prompt) for prompt in self.prompts), default=0)
        self.prompts.append(list(prompt_ids))
        self._left[request_id] = (request.params.max_tokens, len(prompt_ids), cached)

    def start_step(self) -> None:
        assert not self._is_step_running
        self._is_step_running = bool(self._left)

    def take_deltas(self) -> list[tuple[str, TokenDelta]]:
        deltas, self._deltas = self._deltas, []
        assert deltas or self._is_step_running, "there is nothing to do"
        return deltas

    def finish_step(self) -> None:
        if not self._is_step_running:
            return
        self._is_step_running = False
        self.clock += STEP_S
        self.forward_s += FORWARD_S
        for request_id, (left, num_prompt, cached) in list(self._left.items()):
            reason = "length" if left == 1 else None
            self._deltas.append((request_id, TokenDelta((7,), "x", reason, num_prompt, cached)))  # type: ignore[arg-type]
            self._left[request_id] = (left - 1, num_prompt, cached)
            if left == 1:
                del self._left[request_id]

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock += seconds


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
