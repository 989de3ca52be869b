"""Metrics of live turns: one counts where it ends, however often it could not be stored."""

from typing import Any

import pytest

from serve_app.errors import StoreUnavailableError
from serve_app.observe.turns import TurnMetrics
from tests.serve_app.live.ingresses import Ingresses


def num_counted(metrics: TurnMetrics) -> dict[str, float]:
    names = "vllm:request_success_total", "vllm:request_generation_tokens_count"
    samples = [s for family in metrics.registry.collect() for s in family.samples]
    return {name: sum(s.value for s in samples if s.name == name) for name in names}


async def test_a_turn_whose_commit_fails_counts_where_it_is_stored(
    ingresses: Ingresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any) -> None:
        raise StoreUnavailableError("the store is away")

    counts = [TurnMetrics("moss", 4096), TurnMetrics("moss", 4096)]
    first = ingresses.add(watch=counts[0].watch)
    monkeypatch.setattr(first.sessions, "commit", fail)
    monkeypatch.setattr(first.store, "take_up", fail)
    started = await first.start(await ingresses.session())
    second = ingresses.add(watch=counts[1].watch)
    assert (await second.read(started))[-1].kind == "done"
    none = dict.fromkeys(num_counted(counts[0]), 0)
    assert num_counted(counts[0]) == none
    assert num_counted(counts[1]) == dict.fromkeys(none, 1)
