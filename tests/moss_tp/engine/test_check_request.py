"""Wrong requests are refused before anything runs, and end nothing but themselves."""

import asyncio
import math
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.request import EngineRequest
from moss_tp.errors import DeadlineExceededError, InvalidRequestError
from moss_tp.sampling_params import SamplingParams
from tests.moss_tp.engine.scheduling.paged_fake import EOS_ID, expected_reply, fake_engine
from tests.support.anything import anything

GREEDY = SamplingParams(temperature=0, max_tokens=20)


async def collect(engine: AsyncEngine, request: EngineRequest) -> list[int]:
    return [token_id async for delta in engine.generate(request) for token_id in delta.token_ids]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_ids", [1.0, 2.0]),
        ("prompt_ids", [[1], [2]]),
        ("prompt_ids", "12"),
        ("prompt_ids", {1: 2}),
        ("prompt_ids", {9, 5, 3}),
        ("output_ids", frozenset([1, 2])),
        ("prompt_ids", iter([1])),
        ("prompt_ids", None),
        ("prompt_ids", [1, True]),
        ("prompt_ids", [1, None]),
        ("prompt_ids", [10**5000]),
        ("prompt_ids", [math.nan]),
        ("prompt_ids", np.array([1.5])),
        ("prompt_ids", np.array(1)),
        ("params", None),
        ("params", {"max_tokens": 4}),
        ("salt", 5),
        ("salt", "ann\ud800"),
        ("request_id", "\udfff"),
        ("request_id", ["a"]),
        ("priority", 1.5),
        ("priority", None),
        ("deadline_s", "soon"),
        ("deadline_s", math.nan),
        ("num_shared_tokens", 0.5),
        ("is_continuation", 1),
    ],
)
def test_a_value_of_another_type_is_named(field: str, value: Any) -> None:
    request = replace(EngineRequest("a", [1], GREEDY), **{field: value})
    engine = fake_engine()
    with pytest.raises(InvalidRequestError, match=rf"^{field} "):
        engine.add_request(request)
    assert not engine.has_work


def test_ids_of_numpy_are_ids() -> None:
    engine = fake_engine()
    prompts = [[1, 2], (1, 2), np.array([1, 2]), [np.int32(1), np.uint8(2)]]
    for number, prompt in enumerate(prompts):
        engine.add_request(EngineRequest(str(number), prompt, GREEDY))  # type: ignore[arg-type]
    replies: dict[str, list[int]] = {}
    while engine.has_work:
        for name, delta in engine.step():
            replies.setdefault(name, []).extend(delta.token_ids)
    expected = expected_reply([1, 2], 20, frozenset([EOS_ID]), 32)
    assert list(replies.values()) == [expected] * len(prompts)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([one.name for one in fields(EngineRequest)]), anything))
def test_no_request_ends_the_engine_or_another_request(values: dict[str, Any]) -> None:
    """It is refused for what it is, in its caller, or served."""

    async def both() -> None:
        engine = AsyncEngine(fake_engine())
        good = asyncio.create_task(collect(engine, EngineRequest("good", [1], GREEDY)))
        any_request = replace(EngineRequest("any", [2, 3], GREEDY), **values)
        with suppress(InvalidRequestError, DeadlineExceededError):
            await collect(engine, any_request)
        assert await good == expected_reply([1], 20, frozenset([EOS_ID]), 32)
        assert engine.is_alive
        engine.close()

    asyncio.run(both())
